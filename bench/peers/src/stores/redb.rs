//! redb as a registry: `Durability::Immediate`, the default; one write transaction a change.
//!
//! The settings of `engines/redb.rs`. Counters have a table of numbers, values one of bytes. A read
//! is a read transaction, so that it sees the newest commit, as ours does.
//! Next room: [`crate::store`].

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use crate::engine::{Outcome, Setup};
use crate::store::{Found, Start, Store};
use crate::workload::Workload;

const FILE: &str = "registry.redb";
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const VALUES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");

pub(crate) struct RedbRegistry {
    database: Database,
    names: Vec<String>,
}

impl Store for RedbRegistry {
    const NAME: &'static str = "redb-registry";
    const SETTINGS: &'static str = "default: Durability::Immediate, a transaction a change or read";

    fn has(workload: Workload) -> bool {
        workload.of_registry() && !workload.of_agents()
    }

    fn open(setup: &Setup, start: &Start) -> Outcome<RedbRegistry> {
        let database = Database::create(setup.dir.join(FILE))?;
        let transaction = database.begin_write()?;
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let mut values = transaction.open_table(VALUES)?;
            for (at, name) in start.names.iter().enumerate() {
                if start.workload == Workload::RegistryGet {
                    values.insert(name.as_str(), start.value(at).as_slice())?;
                } else {
                    numbers.insert(name.as_str(), 0)?;
                }
            }
        }
        transaction.commit()?;
        Ok(RedbRegistry { database, names: start.names.clone() })
    }

    fn increment(&self, key: usize) -> Outcome<()> {
        let name = self.names[key].as_str();
        let transaction = self.database.begin_write()?;
        {
            let mut numbers = transaction.open_table(NUMBERS)?;
            let number = numbers.get(name)?.ok_or("a key is not there")?.value();
            numbers.insert(name, number + 1)?;
        }
        Ok(transaction.commit()?)
    }

    fn get(&self, _thread: usize, key: usize) -> Outcome<usize> {
        let values = self.database.begin_read()?.open_table(VALUES)?;
        let value = values.get(self.names[key].as_str())?.ok_or("a key is not there")?;
        Ok(value.value().len())
    }

    fn reopen(dir: &Path, each: Found<'_>) -> Outcome<()> {
        let database = Database::open(dir.join(FILE))?; // lives as long as its transactions
        let transaction = database.begin_read()?;
        for row in transaction.open_table(NUMBERS)?.iter()? {
            let (name, number) = row?;
            each(name.value(), number.value().to_string().as_bytes())?;
        }
        for row in transaction.open_table(VALUES)?.iter()? {
            let (name, value) = row?;
            each(name.value(), value.value())?;
        }
        Ok(())
    }
}
