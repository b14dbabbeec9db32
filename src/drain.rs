//! The only place that starts threads, so that shutdown can wait for each and name who was late.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

/// How much nicer than traffic a thread is that steps back: it has a tenth of the weight.
const NICER: i32 = 10;

/// Has this thread wait where traffic wants the core as well. Linux keeps niceness by thread; where it
/// cannot be had, the thread goes on as it is.
pub fn step_back() {
    let _niceness = rustix::process::nice(NICER);
}

/// How long a thread of what blocks stays without work; and how often one gets some, so that one stays.
const KEPT_FOR: Duration = Duration::from_mins(30);
const USED_EVERY: Duration = Duration::from_mins(20);

/// A runtime of `builder` in which what blocks (files, names that are looked up) has a thread from now on.
/// Where a limit of processes allows no more of them, that work waits for this one; without any, tokio
/// panics in whoever asks for it.
pub fn runtime(mut builder: Builder) -> io::Result<Runtime> {
    let runtime = builder.enable_all().thread_keep_alive(KEPT_FOR).build()?;
    // This can fail, and what follows cannot but panic.
    drop(thread::Builder::new().spawn(|| {})?.join());
    runtime.spawn_blocking(|| {});
    runtime.spawn(async {
        loop {
            tokio::time::sleep(USED_EVERY).await;
            let _ended = tokio::task::spawn_blocking(|| {}).await;
        }
    });
    Ok(runtime)
}

/// The threads of the process.
#[derive(Default)]
pub struct Drain {
    threads: Mutex<Vec<(String, JoinHandle<()>)>>,
}

impl Drain {
    /// Starts a thread called `name`; it ends by itself when its input closes.
    pub fn thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let handle = thread::Builder::new().name(name.to_owned()).spawn(work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push((name.to_owned(), handle));
        Ok(())
    }

    /// Waits for the threads whose names start with `prefix`, until `deadline`. Returns who was late.
    pub fn join(&self, prefix: &str, deadline: Instant) -> Vec<String> {
        loop {
            let late = self.unfinished(prefix);
            if late.is_empty() || Instant::now() >= deadline {
                return late;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn unfinished(&self, prefix: &str) -> Vec<String> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|(_, handle)| !handle.is_finished());
        threads
            .iter()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    }
}

/// Nanoseconds that this thread was at work so far: what else the machine does is not in it.
#[cfg(test)]
pub(crate) fn worked_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    text.split(' ').next().and_then(|first| first.parse().ok()).expect("a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_thread_that_steps_back_is_nicer() {
        let niceness = || rustix::process::getpriority_process(None).expect("a niceness");
        let before = niceness();
        let stepped = thread::spawn(move || {
            step_back();
            niceness()
        });
        let stepped = stepped.join().expect("a thread");
        assert_eq!(stepped, (before + NICER).min(19));
        assert_eq!(niceness(), before);
    }

    #[test]
    fn who_is_late_is_named() {
        let drain = Drain::default();
        let (hold, held) = std::sync::mpsc::channel::<()>();
        drain.thread("quick", || {}).expect("a thread");
        drain
            .thread("slow", move || {
                let _ended = held.recv();
            })
            .expect("a thread");
        assert_eq!(drain.join("", Instant::now() + Duration::from_millis(50)), ["slow"]);
        drop(hold);
        assert!(drain.join("", Instant::now() + Duration::from_secs(5)).is_empty());
    }
}
