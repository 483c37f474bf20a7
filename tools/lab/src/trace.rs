// SPDX-License-Identifier: GPL-2.0

//! QEMU's trace log as a witness: what the emulated IOMMU was told, in order. The
//! guest marks a moment and later asks what came since.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// The most lines of one answer; the serial port is slow.
const LINES: usize = 200;

pub struct Trace {
    /// What QEMU writes. It writes out every event before the guest goes on.
    file: File,
    marks: HashMap<String, u64>,
}

impl Trace {
    pub fn new(file: File) -> Trace {
        Trace {
            file,
            marks: HashMap::new(),
        }
    }

    /// What `since(name)` gives starts here.
    pub fn mark(&mut self, name: &str) -> Result<(), String> {
        let length = self.file.metadata().map_err(|e| e.to_string())?.len();
        self.marks.insert(name.to_string(), length);
        Ok(())
    }

    /// The events since the mark, one a line: the name, then its arguments.
    pub fn since(&mut self, name: &str) -> Result<Vec<String>, String> {
        let Some(&mark) = self.marks.get(name) else {
            return Err(format!("there is no mark '{name}'"));
        };
        let text = self.read(mark).map_err(|e| e.to_string())?;
        let mut lines: Vec<String> = text.lines().take(LINES).map(String::from).collect();
        match text.lines().count() - lines.len() {
            0 => {}
            more => lines.push(format!("... and {more} more")),
        }
        Ok(lines)
    }

    /// How many events of each name there were since the mark, one name a line. With `word`: of
    /// those that have this argument, how many of each name and value, "EVENT VALUE NUMBER".
    pub fn count(&mut self, name: &str, word: Option<&str>) -> Result<Vec<String>, String> {
        let Some(&mark) = self.marks.get(name) else {
            return Err(format!("there is no mark '{name}'"));
        };
        let text = self.read(mark).map_err(|e| e.to_string())?;
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some(event), Some(value)) = (words.next(), value(words, word)) else {
                continue;
            };
            *counts.entry((event, value)).or_insert(0u64) += 1;
        }
        let line = |((event, value), n)| match value {
            "" => format!("{event} {n}"),
            value => format!("{event} {value} {n}"),
        };
        Ok(counts.into_iter().map(line).collect())
    }

    fn read(&mut self, from: u64) -> io::Result<String> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(from))?;
        self.file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// What follows the word, after a space or '=', if one is asked for; None where it is not there.
fn value<'a>(mut words: impl Iterator<Item = &'a str>, word: Option<&str>) -> Option<&'a str> {
    let Some(word) = word else {
        return Some("");
    };
    while let Some(next) = words.next() {
        match next.strip_prefix(word) {
            Some("") => return words.next(),
            Some(rest) if rest.starts_with('=') => return Some(&rest[1..]),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn marks_divide_the_log() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut qemu = file.reopen().unwrap();
        let mut trace = Trace::new(file.reopen().unwrap());
        assert!(trace.since("a").is_err());
        qemu.write_all(b"before 1\n").unwrap();
        trace.mark("a").unwrap();
        qemu.write_all(b"one 0x1\ntwo\n").unwrap();
        trace.mark("b").unwrap();
        assert_eq!(trace.since("a").unwrap(), ["one 0x1", "two"]);
        assert!(trace.since("b").unwrap().is_empty());
        trace.mark("a").unwrap();
        assert!(trace.since("a").unwrap().is_empty());
    }

    #[test]
    fn events_are_counted_by_name() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut trace = Trace::new(file.reopen().unwrap());
        assert!(trace.count("a", None).is_err());
        trace.mark("a").unwrap();
        assert!(trace.count("a", None).unwrap().is_empty());
        file.write_all(b"two 1\none\ntwo 2\n").unwrap();
        assert_eq!(trace.count("a", None).unwrap(), ["one 1", "two 2"]);
    }

    #[test]
    fn events_are_counted_by_an_argument() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut trace = Trace::new(file.reopen().unwrap());
        trace.mark("a").unwrap();
        file.write_all(b"one of 1 x 2\none of 1 x 3\ntwo of 1\none of 2\none x 1\none of\n")
            .unwrap();
        assert_eq!(
            trace.count("a", Some("of")).unwrap(),
            ["one 1 2", "one 2 1", "two 1 1"]
        );
    }

    #[test]
    fn an_argument_may_have_an_equals_sign() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut trace = Trace::new(file.reopen().unwrap());
        trace.mark("a").unwrap();
        file.write_all(b"one off=7 of=1 x=2\none of=1\none x=of\n")
            .unwrap();
        assert_eq!(trace.count("a", Some("of")).unwrap(), ["one 1 2"]);
    }

    #[test]
    fn long_answers_are_cut() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut trace = Trace::new(file.reopen().unwrap());
        trace.mark("a").unwrap();
        file.write_all("line\n".repeat(LINES + 3).as_bytes())
            .unwrap();
        let lines = trace.since("a").unwrap();
        assert_eq!(lines.len(), LINES + 1);
        assert_eq!(lines[LINES], "... and 3 more");
    }
}
