//! A judge's verdict on one shader: a line that `scripts/compilers.sh` counts.

use std::fmt;

/// Characters of a message that are kept.
const MESSAGE: usize = 600;

/// A judge's word on one shader.
#[derive(Debug)]
pub struct Verdict {
    /// The shader.
    pub name: String,
    refused: Option<String>,
}

impl Verdict {
    /// The shader is taken, or refused with a message.
    pub fn new<E: fmt::Display>(name: &str, result: Result<(), E>) -> Self {
        Self { name: name.to_owned(), refused: result.err().map(|error| error.to_string()) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.refused {
            None => write!(f, "pass\t{}", self.name),
            Some(message) => {
                let words: Vec<&str> = message.split_whitespace().collect();
                let line: String = words.join(" ").chars().take(MESSAGE).collect();
                write!(f, "fail\t{}\t{line}", self.name)
            }
        }
    }
}

/// Runs a judge on every item, on all processors, and keeps the order.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], judge: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = items.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        let judge = &judge;
        let running: Vec<_> = items
            .chunks(share)
            .map(|chunk| scope.spawn(move || chunk.iter().map(judge).collect::<Vec<_>>()))
            .collect();
        let mut results = Vec::new();
        for thread in running {
            match thread.join() {
                Ok(done) => results.extend(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        results
    })
}
