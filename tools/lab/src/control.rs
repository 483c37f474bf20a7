// SPDX-License-Identifier: GPL-2.0

//! The guest's second serial port: the script's output, and between its lines
//! requests to the host, most of which are carried out over QMP.
//!
//! A request is a line `\002@vm COMMAND`; the answer is a line `ok` or
//! `error TEXT`, before it lines `| TEXT` if there is more to say. Commands:
//!   started              the script is about to run
//!   exit STATUS          it ended
//!   device_add ARGS      plug a device; ARGS as for QEMU's -device
//!   device_del ID        ask the guest to let a device go
//!   wait_deleted ID [S]  wait until QEMU has removed it, at most S seconds (10)
//!   trace mark NAME      remember this moment of the trace (--trace)
//!   trace since NAME     the events since then
//!   trace count NAME [ARGUMENT]
//!                        how many of each there were since then, or of each and each
//!                        value after that word
//!   next                 wait for an order of who started the guest (lead.rs); the order
//!   insns on|off         write each instruction that is executed to a file (--insns)

use crate::lead::Led;
use crate::monitor::Monitor;
use crate::trace::Trace;
use qapi::qmp;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

/// What the supervisor hears from the guest.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A line of the kernel's console.
    Console(String),
    /// A line of the script.
    Script(String),
    /// A request of the guest and its answer, for the log.
    Request(String),
    Started,
    Exit(i32),
}

const MARK: u8 = 2;

/// Calls `f` with each line; a last line without its end counts.
fn each_line(from: impl Read, mut f: impl FnMut(&[u8]) -> bool) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        // QEMU being killed may reset the connection: then this is its end.
        let end = matches!(reader.read_until(b'\n', &mut line), Ok(0) | Err(_));
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if !line.is_empty() && !f(text) || end {
            return;
        }
    }
}

/// Reads the kernel's console until QEMU is gone.
pub fn read_console(from: impl Read, events: Sender<Event>) {
    each_line(from, |line| {
        let text = String::from_utf8_lossy(line).into_owned();
        events.send(Event::Console(text)).is_ok()
    });
}

/// Serves the second port until QEMU is gone.
pub fn serve(port: UnixStream, mut host: Host, events: Sender<Event>) {
    let Ok(mut answers) = port.try_clone() else {
        return;
    };
    each_line(port, |line| {
        let (output, request) = split_request(line);
        if let Some(text) = output {
            if let Some(led) = &host.led {
                led.line(&text);
            }
            if events.send(Event::Script(text)).is_err() {
                return false;
            }
        }
        let Some(request) = request else {
            return true;
        };
        let (event, answer) = match request.split_once(' ') {
            None if request == "started" => (Event::Started, Ok(Vec::new())),
            Some(("exit", status)) => {
                let status = status.parse().unwrap_or(255);
                (Event::Exit(status), Ok(Vec::new()))
            }
            _ => {
                let answer = host.execute(&request);
                let told = match &answer {
                    Ok(_) => format!("{request}: ok"),
                    Err(text) => format!("{request}: error: {text}"),
                };
                (Event::Request(told), answer)
            }
        };
        let sent = events.send(event).is_ok();
        let answer = match answer {
            Ok(lines) => {
                let lines = lines.iter().map(|l| format!("| {l}\n"));
                lines.chain(["ok\n".to_string()]).collect()
            }
            Err(text) => format!("error {}\n", text.replace(['\r', '\n'], " ")),
        };
        sent && answers.write_all(answer.as_bytes()).is_ok()
    });
}

/// The script's part and the request in one line. A request may follow output
/// that has no line end yet.
fn split_request(line: &[u8]) -> (Option<String>, Option<String>) {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    match line.iter().position(|b| *b == MARK) {
        Some(at) if line[at + 1..].starts_with(b"@vm ") => {
            let output = (at > 0).then(|| text(&line[..at]));
            (output, Some(text(&line[at + 5..]).trim().to_string()))
        }
        _ => (Some(text(line)), None),
    }
}

/// What requests are about: the monitor and the trace.
pub struct Host {
    monitor: Monitor,
    deleted: Vec<String>,
    trace: Option<Trace>,
    insns: Option<PathBuf>,
    led: Option<Led>,
}

impl Host {
    pub fn new(monitor: UnixStream, trace: Option<Trace>, insns: Option<PathBuf>) -> Host {
        Host {
            monitor: Monitor::new(monitor),
            deleted: Vec::new(),
            trace,
            insns,
            led: None,
        }
    }

    /// With somebody who answers `next`.
    pub fn led(self, led: Option<Led>) -> Host {
        Host { led, ..self }
    }

    /// Does what is asked; what there is to say about it besides.
    fn execute(&mut self, request: &str) -> Result<Vec<String>, String> {
        let words: Vec<&str> = request.split_whitespace().collect();
        match words[..] {
            ["device_add", args] => self.human(&format!("device_add {args}"))?,
            ["device_del", id] => {
                self.deleted.retain(|d| d != id);
                let command = qmp::device_del { id: id.into() };
                let answer = self.monitor.get()?.execute(&command);
                answer.map_err(|e| e.to_string())?;
            }
            ["wait_deleted", id] => self.wait_deleted(id, 10)?,
            ["wait_deleted", id, seconds] => match seconds.parse() {
                Ok(n) => self.wait_deleted(id, n)?,
                Err(_) => return Err(format!("'{seconds}' is not a number of seconds")),
            },
            ["trace", "mark", name] => self.trace()?.mark(name)?,
            ["trace", "since", name] => return self.trace()?.since(name),
            ["trace", "count", name] => return self.trace()?.count(name, None),
            ["trace", "count", name, word] => return self.trace()?.count(name, Some(word)),
            ["next"] => {
                let led = self.led.as_ref().ok_or("nobody gives orders")?;
                return led.next();
            }
            ["insns", "on"] => {
                let file = self.insns.as_ref().ok_or("vm runs without --insns")?;
                let file = format!("logfile {}", file.display());
                self.human(&file)?;
                self.human("one-insn-per-tb on")?;
                self.human("log exec,nochain")?;
            }
            ["insns", "off"] => {
                self.human("log none")?;
                self.human("one-insn-per-tb off")?;
            }
            _ => return Err(format!("unknown request '{request}'")),
        }
        Ok(Vec::new())
    }

    fn trace(&mut self) -> Result<&mut Trace, String> {
        self.trace
            .as_mut()
            .ok_or_else(|| "vm runs without --trace".to_string())
    }

    /// A command of the human monitor, which knows some that QMP does not. Its device_add takes
    /// the -device syntax that is used everywhere else here, where QMP's wants every property in
    /// its JSON type.
    fn human(&mut self, command: &str) -> Result<(), String> {
        let command = qmp::human_monitor_command {
            command_line: command.to_string(),
            cpu_index: None,
        };
        let text = self
            .monitor
            .get()?
            .execute(&command)
            .map_err(|e| e.to_string())?;
        match text.trim() {
            "" => Ok(()),
            problem => Err(problem.to_string()),
        }
    }

    fn wait_deleted(&mut self, id: &str, seconds: u64) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let monitor = self.monitor.get()?;
            monitor.nop().map_err(|e| e.to_string())?;
            let mut gone = Vec::new();
            for event in monitor.events() {
                if let qmp::Event::DEVICE_DELETED { data, .. } = event {
                    gone.extend(data.device);
                }
            }
            self.deleted.append(&mut gone);
            if self.deleted.iter().any(|d| d == id) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("device {id} is still there after {seconds} s"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_requests_are_told_apart() {
        let some = |s: &str| Some(s.to_string());
        assert_eq!(split_request(b"hello"), (some("hello"), None));
        assert_eq!(split_request(b""), (some(""), None));
        assert_eq!(split_request(b"\x02@vm exit 3"), (None, some("exit 3")));
        assert_eq!(
            split_request(b"part\x02@vm device_del a"),
            (some("part"), some("device_del a"))
        );
        assert_eq!(split_request(b"@vm exit 0"), (some("@vm exit 0"), None));
    }

    #[test]
    fn the_port_is_served() {
        let (ours, guest) = UnixStream::pair().unwrap();
        let (monitor, _qemu) = UnixStream::pair().unwrap();
        let (send, events) = std::sync::mpsc::channel();
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let host = Host::new(monitor, Some(Trace::new(log.reopen().unwrap())), None);
        let server = std::thread::spawn(move || serve(ours, host, send));
        let mut writer = guest.try_clone().unwrap();
        let mut answers = BufReader::new(guest.try_clone().unwrap()).lines();
        let mut ask = |text: &str| {
            writer.write_all(text.as_bytes()).unwrap();
            let first = answers.next().unwrap().unwrap();
            match first.strip_prefix("| ") {
                Some(line) => format!("{line}, {}", answers.next().unwrap().unwrap()),
                None => first,
            }
        };
        assert_eq!(ask("\x02@vm started\n"), "ok");
        assert_eq!(
            ask("a\r\nb\x02@vm nonsense\n"),
            "error unknown request 'nonsense'"
        );
        assert_eq!(ask("\x02@vm exit 7\n"), "ok");
        assert_eq!(ask("\x02@vm trace mark m\n"), "ok");
        log.write_all(b"event 0x1\n").unwrap();
        assert_eq!(ask("\x02@vm trace since m\n"), "event 0x1, ok");
        assert_eq!(ask("\x02@vm trace count m\n"), "event 1, ok");
        assert_eq!(ask("\x02@vm trace count m domain\n"), "ok");
        assert_eq!(ask("\x02@vm insns on\n"), "error vm runs without --insns");
        assert_eq!(ask("\x02@vm next\n"), "error nobody gives orders");
        guest.shutdown(std::net::Shutdown::Both).unwrap();
        server.join().unwrap();
        let all: Vec<Event> = events.iter().collect();
        assert_eq!(
            all[..3],
            [
                Event::Started,
                Event::Script("a".into()),
                Event::Script("b".into())
            ]
        );
        assert_eq!(all[4], Event::Exit(7));
    }

    #[test]
    fn a_led_script_is_told_what_is_next() {
        let (ours, guest) = UnixStream::pair().unwrap();
        let (monitor, _qemu) = UnixStream::pair().unwrap();
        let (send, _events) = std::sync::mpsc::channel();
        let (led, leader, _) = crate::lead::pair().unwrap();
        let host = Host::new(monitor, None, None).led(Some(led));
        let server = std::thread::spawn(move || serve(ours, host, send));
        let script = std::thread::spawn(move || {
            let mut writer = guest.try_clone().unwrap();
            let mut answers = BufReader::new(guest).lines();
            writer.write_all(b"ready\n\x02@vm next\n").unwrap();
            let order = answers.next().unwrap().unwrap();
            assert_eq!(answers.next().unwrap().unwrap(), "ok");
            writer
                .write_all(format!("did {order}\n").as_bytes())
                .unwrap();
        });
        let limit = Duration::from_secs(10);
        assert_eq!(leader.wait(limit).unwrap(), ["ready"]);
        // The script ends without asking again.
        let lost = leader.order("this", limit).unwrap_err();
        assert_eq!(lost, crate::lead::Lost::Ended(vec!["did | this".into()]));
        script.join().unwrap();
        server.join().unwrap();
    }
}
