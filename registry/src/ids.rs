//! Names that are drawn at random and never used again: [`LeaseId`] and [`WriterId`].
//!
//! Never here: what they name. Invariant: 128 random bits from the log's directory, so that two
//! processes draw no equal ones and a test's can be had again. Next room: [`crate::value`].

use std::fmt;
use std::str::FromStr;

use annals_wal::Log;

use crate::error::{Error, Result};

macro_rules! id {
    ($name:ident, $what:literal) => {
        #[doc = concat!("The id of a ", $what, ": 128 random bits, printed as 32 hex digits.")]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u128);

        impl $name {
            pub(crate) fn random(log: &Log) -> Result<$name> {
                let mut bytes = [0; 16];
                log.dir().random(&mut bytes).map_err(|e| Error::io("drawing a random id", e))?;
                Ok($name(u128::from_le_bytes(bytes)))
            }

            /// The id as a number.
            pub fn get(self) -> u128 {
                self.0
            }
        }

        impl From<u128> for $name {
            fn from(id: u128) -> $name {
                $name(id)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<$name> {
                let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let id = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
                id.map($name).ok_or_else(|| {
                    Error::invalid(concat!("the id of a ", $what, " is 32 hex digits"))
                })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }
    };
}

id!(LeaseId, "lease");
id!(WriterId, "writer");
