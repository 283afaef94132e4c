//! Memory, threads and files of the process, second by second, read from `/proc/self`.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(1);

/// The work that is done so far.
#[derive(Debug, Default)]
pub struct Counts {
    pub rounds: AtomicU64,
    /// Of one rank each, forward and backward.
    pub steps: AtomicU64,
    pub layers: AtomicU64,
    pub devices: AtomicU64,
    pub faults: AtomicU64,
    /// Ranks that went on after a fault.
    pub recoveries: AtomicU64,
}

impl Counts {
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn all(&self) -> [u64; 6] {
        let Self { rounds, steps, layers, devices, faults, recoveries } = self;
        [rounds, steps, layers, devices, faults, recoveries]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rounds, steps, layers, devices, faults, recoveries] = self.all();
        write!(
            f,
            "{rounds} rounds, {steps} steps of a rank, {layers} layers, {devices} devices opened, \
             {faults} faults, {recoveries} recoveries of a rank"
        )
    }
}

/// Memory, threads and files of the process at some second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub second: f64,
    /// Resident memory.
    pub rss_kib: f64,
    pub threads: f64,
    /// Open files, sockets and the like.
    pub files: f64,
}

impl Sample {
    fn now(second: f64) -> io::Result<Self> {
        let status = fs::read_to_string("/proc/self/status")?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let missing = || io::Error::other("/proc/self/status has no such line");
        Ok(Self {
            second,
            rss_kib: number("VmRSS:").ok_or_else(missing)?,
            threads: number("Threads:").ok_or_else(missing)?,
            // The folder itself is open while it is read.
            files: fs::read_dir("/proc/self/fd")?.count() as f64 - 1.0,
        })
    }
}

/// A thread that writes the record.
pub struct Watch {
    /// Closed to end it.
    end: Sender<()>,
    thread: JoinHandle<io::Result<Vec<Sample>>>,
}

impl Watch {
    pub fn begin(path: &Path, counts: Arc<Counts>, driver: &str) -> io::Result<Self> {
        let mut file = File::create(path)?;
        writeln!(file, "# soak of {driver} and the host; counts are sums since the beginning")?;
        writeln!(
            file,
            "second,rss_kib,threads,files,rounds,steps,layers,devices,faults,recoveries"
        )?;
        let (end, ended) = mpsc::channel::<()>();
        let thread = thread::spawn(move || {
            let began = Instant::now();
            let mut samples = Vec::new();
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let sample = Sample::now(began.elapsed().as_secs_f64())?;
                let Sample { second, rss_kib, threads, files } = sample;
                let [rounds, steps, layers, devices, faults, recoveries] = counts.all();
                writeln!(
                    file,
                    "{second:.0},{rss_kib},{threads},{files},{rounds},{steps},{layers},{devices},\
                     {faults},{recoveries}"
                )?;
                samples.push(sample);
            }
            Ok(samples)
        });
        Ok(Self { end, thread })
    }

    /// The samples.
    pub fn end(self) -> Result<Vec<Sample>, Box<dyn std::error::Error>> {
        drop(self.end);
        Ok(self.thread.join().map_err(|_| "the watch panicked")??)
    }
}
