// SPDX-License-Identifier: GPL-2.0

//! A script that is told what to do next while it runs: it asks with `vm_host next`, and whoever
//! started the guest answers, when it is this guest's turn. And who did may hold it.

use crate::monitor::Monitor;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// What the script said, in order.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Line(String),
    /// It asks what is next, and waits.
    Next,
}

/// The guest's side.
pub struct Led {
    said: Sender<Said>,
    orders: Receiver<String>,
    /// QEMU's end of a monitor of the leader's own
    pub(crate) monitor: Option<UnixStream>,
}

/// The side of who gives the orders.
pub struct Leader {
    said: Receiver<Said>,
    orders: Sender<String>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// The script ended, or the guest. What it said last.
    Ended(Vec<String>),
    Late,
}

/// Both sides of one guest, and what holds it.
pub fn pair() -> io::Result<(Led, Leader, Monitor)> {
    let (said, hears) = channel();
    let (orders, takes) = channel();
    let (ours, theirs) = UnixStream::pair()?;
    let led = Led {
        said,
        orders: takes,
        monitor: Some(theirs),
    };
    let leader = Leader {
        said: hears,
        orders,
    };
    Ok((led, leader, Monitor::new(ours)))
}

impl Led {
    /// The script has printed a line.
    pub fn line(&self, text: &str) {
        // Fails where nobody listens any more.
        let _ = self.said.send(Said::Line(text.to_string()));
    }

    /// Waits for the next order.
    pub fn next(&self) -> Result<Vec<String>, String> {
        let nobody = || "nobody gives orders any more".to_string();
        self.said.send(Said::Next).map_err(|_| nobody())?;
        self.orders.recv().map(|o| vec![o]).map_err(|_| nobody())
    }
}

impl Leader {
    /// Waits until the script asks for an order; the lines that it printed until then.
    pub fn wait(&self, limit: Duration) -> Result<Vec<String>, Lost> {
        let mut lines = Vec::new();
        loop {
            match self.said.recv_timeout(limit) {
                Ok(Said::Line(line)) => lines.push(line),
                Ok(Said::Next) => return Ok(lines),
                Err(RecvTimeoutError::Timeout) => return Err(Lost::Late),
                Err(RecvTimeoutError::Disconnected) => return Err(Lost::Ended(lines)),
            }
        }
    }

    /// Gives an order, waits until it was carried out, and returns the lines printed meanwhile. The
    /// limit is for silence.
    pub fn order(&self, order: &str, limit: Duration) -> Result<Vec<String>, Lost> {
        match self.orders.send(order.to_string()) {
            Ok(()) => self.wait(limit),
            Err(_) => Err(Lost::Ended(Vec::new())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn orders_and_lines_go_by_turns() {
        let (led, leader, _) = pair().unwrap();
        let guest = std::thread::spawn(move || {
            led.line("booted");
            while let Ok(order) = led.next() {
                led.line(&format!("did {}", order[0]));
            }
        });
        assert_eq!(leader.wait(LIMIT).unwrap(), ["booted"]);
        assert_eq!(leader.order("a", LIMIT).unwrap(), ["did a"]);
        assert_eq!(leader.order("b", LIMIT).unwrap(), ["did b"]);
        drop(leader);
        guest.join().unwrap();
    }

    #[test]
    fn a_guest_that_ends_is_noticed() {
        let (led, leader, _) = pair().unwrap();
        led.line("oops");
        drop(led);
        let lost = Lost::Ended(vec!["oops".into()]);
        assert_eq!(leader.wait(LIMIT), Err(lost));
        assert_eq!(leader.order("a", LIMIT), Err(Lost::Ended(vec![])));
    }

    #[test]
    fn a_silent_guest_is_late() {
        let (_led, leader, _) = pair().unwrap();
        assert_eq!(leader.wait(Duration::from_millis(1)), Err(Lost::Late));
    }
}
