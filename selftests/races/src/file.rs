// SPDX-License-Identifier: GPL-2.0

//! Files of the kernel, and waiting.

use anyhow::{Context, Result};
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

/// Writes `text` in one write(); makes no file where there is none.
pub fn write(path: &Path, text: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new().write(true).open(path)?;
        let done = file.write(text.as_bytes())?;
        if done < text.len() {
            return Err(io::ErrorKind::WriteZero.into());
        }
        Ok(())
    };
    write().with_context(|| format!("writing '{}' to {}", text.trim_end(), path.display()))
}

/// The contents without the last line end.
pub fn read(path: &Path) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim_end().to_string())
}

/// Opens a device's file to read and write.
pub fn open_device(path: &str) -> Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    options
        .open(path)
        .with_context(|| format!("opening {path}"))
}

/// The number of the system's error behind an error of this program.
pub fn errno(error: &anyhow::Error) -> Option<i32> {
    error.downcast_ref::<io::Error>()?.raw_os_error()
}

/// Asks until the answer is yes; whether it came in time.
pub fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_their_number() {
        let error = write(Path::new("/nonexistent/x"), "1\n").unwrap_err();
        assert_eq!(errno(&error), Some(2));
        let error = error.context("more");
        assert_eq!(errno(&error), Some(2));
        assert_eq!(errno(&anyhow::anyhow!("other")), None);
    }

    #[test]
    fn waiting_ends() {
        let mut left = 3;
        let mut done = || {
            left -= 1;
            left == 0
        };
        assert!(wait_for(Duration::from_secs(10), &mut done));
        assert!(!wait_for(Duration::ZERO, || false));
    }
}
