// SPDX-License-Identifier: GPL-2.0

//! Says how far something is and how long it will take, on standard error.

use std::time::{Duration, Instant};

/// Nothing is silent for longer.
const EVERY: Duration = Duration::from_secs(5);

/// One step of the whole.
pub struct Progress {
    what: String,
    /// When the first part was done: before it guests boot.
    begin: Option<Instant>,
    said: Instant,
}

impl Progress {
    /// It begins now.
    pub fn new(what: &str) -> Progress {
        let now = Instant::now();
        eprintln!("bench: {what}");
        Progress {
            what: what.into(),
            begin: None,
            said: now,
        }
    }

    fn due(&mut self) -> bool {
        let due = self.said.elapsed() >= EVERY;
        if due {
            self.said = Instant::now();
        }
        due
    }

    /// So many of so many are done.
    pub fn of(&mut self, done: usize, all: usize) {
        let begin = *self.begin.get_or_insert_with(Instant::now);
        if done > 1 && self.due() {
            let each = begin.elapsed().as_secs_f64() / (done - 1) as f64;
            let left = span(each * (all - done.min(all)) as f64);
            eprintln!("bench: {}: {done} of {all}, {left} left", self.what);
        }
    }

    /// It goes on until then.
    pub fn until(&mut self, note: &str, end: Instant) {
        if self.due() {
            let left = end.saturating_duration_since(Instant::now()).as_secs_f64();
            eprintln!("bench: {}: {note}, {} left", self.what, span(left));
        }
    }
}

/// Seconds, as people say them.
pub fn span(seconds: f64) -> String {
    match seconds.ceil().max(0.0) {
        s if s < 120.0 => format!("{s} s"),
        s => format!("{} min", (s / 60.0).round()),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans() {
        assert_eq!(span(0.2), "1 s");
        assert_eq!(span(-3.0), "0 s");
        assert_eq!(span(119.0), "119 s");
        assert_eq!(span(150.0), "3 min");
    }
}
