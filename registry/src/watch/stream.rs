//! A watch as a stream: a thread reads ahead, and polling never does I/O.
//!
//! Never here: what a watch tells. Invariants: an event leaves the buffer only when it is returned,
//! so a wait that is cancelled loses nothing; the buffer is bounded; in a child made by fork, which
//! has not the thread, no lock of the buffer is touched and nothing is waited for. Next room:
//! [`super`].

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;

use futures_core::Stream;

use super::{Event, TICK, Watch};
use crate::error::{Error, Result};
use crate::process::Process;

/// A watch as a [`Stream`]: no runtime is needed, any can poll it. Cancel-safe: an event leaves the
/// buffer only when it is returned. Dropping it ends its thread.
///
/// ```
/// use annals_registry::{After, Event, Key, Prefix, Registry, Value};
/// use futures_util::StreamExt;
/// # use annals_wal::Log;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let registry = Registry::on(Log::open(dir.path().join("log"))?)?;
/// registry.put(&Key::new("agents/A7")?, Value::json(&1)?)?;
/// let mut events = registry.watch(Prefix::all(), After::Start)?.into_stream(16)?;
/// let first = futures_executor::block_on(events.next());
/// assert!(matches!(first, Some(Ok(Event::Changed { .. }))));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct WatchStream {
    pipe: Arc<Pipe>,
    thread: Option<JoinHandle<()>>,
    process: Process,
    /// A forked child was told that this is not its own.
    refused: bool,
}

#[derive(Debug)]
struct Pipe {
    buffer: Mutex<Buffer>,
    room: Condvar,
    events_max: usize,
}

#[derive(Default, Debug)]
struct Buffer {
    events: VecDeque<Result<Event>>,
    waker: Option<Waker>,
    /// The reader has gone: what is in the buffer is all.
    ended: bool,
    /// The stream has gone.
    dropped: bool,
}

impl Pipe {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody still wants events.
    fn push(&self, event: Result<Event>) -> bool {
        let mut buffer = self.buffer();
        while buffer.events.len() >= self.events_max && !buffer.dropped {
            buffer = self.room.wait(buffer).unwrap_or_else(PoisonError::into_inner);
        }
        if buffer.dropped {
            return false;
        }
        buffer.events.push_back(event);
        wake(buffer);
        true
    }

    fn end(&self) {
        let mut buffer = self.buffer();
        buffer.ended = true;
        wake(buffer);
    }
}

fn wake(mut buffer: MutexGuard<'_, Buffer>) {
    let waker = buffer.waker.take();
    drop(buffer);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl WatchStream {
    pub(super) fn of(mut watch: Watch, events_max: usize) -> Result<WatchStream> {
        let process = watch.process.clone();
        let buffer = Mutex::new(Buffer::default());
        let pipe = Arc::new(Pipe { buffer, room: Condvar::new(), events_max });
        let into = pipe.clone();
        let reading = move || {
            while !into.buffer().dropped && !watch.ended {
                let event = watch.next_timeout(TICK).transpose();
                if event.is_some_and(|event| !into.push(event)) {
                    break;
                }
            }
            into.end();
        };
        let thread = std::thread::Builder::new().name("annals-watch".to_owned());
        let thread = thread.spawn(reading).map_err(|e| Error::io("starting a watch", e))?;
        Ok(WatchStream { pipe, thread: Some(thread), process, refused: false })
    }
}

impl Stream for WatchStream {
    type Item = Result<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Err(error) = self.process.check() {
            let first = !std::mem::replace(&mut self.refused, true);
            return Poll::Ready(first.then_some(Err(error)));
        }
        let mut buffer = self.pipe.buffer();
        if let Some(event) = buffer.events.pop_front() {
            self.pipe.room.notify_one();
            return Poll::Ready(Some(event));
        }
        if buffer.ended {
            return Poll::Ready(None);
        }
        buffer.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        if !self.process.is_here() {
            std::mem::forget(self.thread.take());
            return;
        }
        self.pipe.buffer().dropped = true;
        self.pipe.room.notify_all();
        if let Some(thread) = self.thread.take() {
            // A reader that panicked has told nothing more; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}
