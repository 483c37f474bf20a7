// SPDX-License-Identifier: GPL-2.0

//! Two guests that work at once, and get the machine by turns that are far shorter than what they do: while one of
//! them runs, QEMU holds the other one, with its clock. So both are given the same hosts, fast and slow, and each
//! takes the time that it would have needed alone.

use crate::guest::Guest;
use anyhow::{Result, anyhow};
use lab::monitor::Monitor;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Far longer than changing over takes, and short to how long a host stays fast or slow.
const TURN: Duration = Duration::from_millis(20);

/// Who is next, after a turn of `running`; None when both are over.
fn next(running: usize, over: [bool; 2]) -> Option<usize> {
    [1 - running, running].into_iter().find(|n| !over[*n])
}

/// Until both have said that they are over.
fn pace(monitors: &mut [Monitor; 2], first: usize, ends: &Receiver<usize>) -> Result<(), String> {
    monitors[1 - first].hold()?;
    let mut over = [false; 2];
    let mut running = first;
    loop {
        match ends.recv_timeout(TURN) {
            Ok(n) => over[n] = true,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        let Some(other) = next(running, over) else {
            return Ok(());
        };
        if other != running {
            monitors[running].hold()?;
            monitors[other].go_on()?;
            running = other;
        }
    }
}

/// Has each guest carry out an order; what they printed.
pub fn both(
    guests: &mut [Guest; 2],
    monitors: &mut [Monitor; 2],
    orders: [String; 2],
    first: usize,
) -> Result<[Vec<String>; 2]> {
    let (answers, paced) = std::thread::scope(|scope| {
        let (ended, ends) = channel();
        let both = guests.iter_mut().zip(&orders).enumerate();
        let threads: Vec<_> = both
            .map(|(n, (guest, order))| {
                let ended = ended.clone();
                scope.spawn(move || {
                    let answer = guest.order(order);
                    // Fails where turns have ended with an error.
                    let _ = ended.send(n);
                    answer
                })
            })
            .collect();
        let mut paced = pace(monitors, first, &ends);
        // However it ended: nobody is left waiting.
        for monitor in monitors.iter_mut() {
            paced = paced.and(monitor.go_on());
        }
        let answers: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
        (answers, paced)
    });
    paced.map_err(|e| anyhow!("a guest cannot be held: {e}"))?;
    let mut lines = answers
        .into_iter()
        .map(|a| a.unwrap_or_else(|_| Err(anyhow!("a thread of a guest panicked"))));
    let mut line = || lines.next().unwrap_or_else(|| Err(anyhow!("no answer")));
    Ok([line()?, line()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_over_has_no_turn() {
        for running in [0, 1] {
            assert_eq!(next(running, [false; 2]), Some(1 - running));
            assert_eq!(next(running, [true; 2]), None);
            assert_eq!(next(running, [false, true]), Some(0));
            assert_eq!(next(running, [true, false]), Some(1));
        }
    }
}
