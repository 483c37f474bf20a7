// SPDX-License-Identifier: GPL-2.0

//! Starts QEMU and watches over one run of a guest.

use crate::control::{self, Event, Host};
use crate::kernel::Kernel;
use crate::lead::Led;
use crate::machine::{
    self, FD_CONSOLE, FD_CONTROL, FD_DISK0, FD_FILES, FD_INITRD, FD_LEADER, FD_QMP, FD_TRACE,
};
use crate::options::Options;
use crate::splat::{Report, Scanner};
use crate::trace::Trace;
use crate::{accel, clock, initramfs};
use anyhow::{Context, Result};
use command_fds::{CommandFdExt, FdMapping};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// The script's exit status
    Script(i32),
    /// The shell was left
    Shell,
    Timeout(&'static str),
    Died(ExitStatus),
    Interrupted,
}

#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub reports: Vec<Report>,
    /// From the start of QEMU to the start of the script.
    pub boot: Option<Duration>,
}

/// Time for shutting down once the script has ended.
const SHUTDOWN: Duration = Duration::from_secs(60);

/// Set when this program is asked to stop.
fn interrupted() -> &'static Arc<AtomicBool> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    FLAG.get_or_init(|| {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [
            signal_hook::consts::SIGINT,
            signal_hook::consts::SIGTERM,
            signal_hook::consts::SIGHUP,
        ] {
            // Fails for unknown signals only.
            signal_hook::flag::register(signal, flag.clone()).expect("a signal that exists");
        }
        flag
    })
}

/// A file in memory. It disappears with the last process that has it open, so
/// nothing is left over however a run ends.
fn memory_file(name: &str) -> Result<File> {
    Ok(memfd_create(name, MemfdFlags::CLOEXEC)
        .context("cannot make a file in memory")?
        .into())
}

/// A QEMU process, killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Our ends of the connections to QEMU.
struct Connections {
    console: Option<File>,
    control: UnixStream,
    monitor: UnixStream,
    trace: Option<Trace>,
}

fn start(
    o: &Options,
    kernel: &Kernel,
    kvm: bool,
    silent: bool,
    leader: Option<UnixStream>,
) -> Result<(Qemu, Connections)> {
    let mut fds = Vec::new();
    let mut inherit = |fd: OwnedFd, child_fd: i32| {
        fds.push(FdMapping {
            parent_fd: fd,
            child_fd,
        })
    };
    let (control, theirs) = UnixStream::pair()?;
    inherit(theirs.into(), FD_CONTROL);
    let (monitor, theirs) = UnixStream::pair()?;
    inherit(theirs.into(), FD_QMP);

    let initrd = match &o.system {
        None => {
            let mut initrd = memory_file("initrd")?;
            initramfs::write(&mut initrd, o, kernel)?;
            initrd
        }
        Some(system) => {
            let mut files = memory_file("files")?;
            initramfs::write_files(&mut files, o, kernel)?;
            inherit(files.into(), FD_FILES);
            let initrd = system.join("initrd");
            File::open(&initrd).with_context(|| format!("cannot read {}", initrd.display()))?
        }
    };
    inherit(initrd.into(), FD_INITRD);
    for n in 0..o.disk_count() {
        let disk = memory_file("disk")?;
        disk.set_len(o.disk_size)?;
        inherit(disk.into(), FD_DISK0 + n as i32);
    }

    let mut trace = None;
    if !o.trace.is_empty() {
        let file = match &o.trace_file {
            Some(path) => File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?,
            None => memory_file("trace")?,
        };
        inherit(file.try_clone()?.into(), FD_TRACE);
        trace = Some(Trace::new(file));
    }

    // KVM tells the guest itself, and counted instructions are a clock that is never late.
    let tsc_khz = (!kvm && !o.icount).then(clock::tsc_khz).flatten();
    let mut args = machine::qemu_args(o, kernel, kvm, tsc_khz)?;
    let mut arg = |name: &str, value: String| args.extend([name.to_string(), value]);
    let mut console = None;
    if o.shell {
        let log = match &o.log {
            Some(file) => format!(",logfile={}", file.display()),
            None => String::new(),
        };
        arg(
            "-chardev",
            format!("stdio,id=console,mux=on,signal=off{log}"),
        );
        arg("-object", "monitor-hmp,id=hmp,chardev=console".into());
    } else {
        // A pipe and blocking writes: printk does not wait for a slow reader,
        // so that on a socket, which takes few one-byte writes, text gets lost.
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
        inherit(theirs, FD_CONSOLE);
        console = Some(File::from(ours));
        arg(
            "-chardev",
            format!("file,id=console,path=/dev/fd/{FD_CONSOLE}"),
        );
    }
    arg("-serial", "chardev:console".into());
    arg("-chardev", format!("socket,id=control,fd={FD_CONTROL}"));
    arg("-serial", "chardev:control".into());
    if let Some(monitor) = leader {
        inherit(monitor.into(), FD_LEADER);
        arg("-chardev", format!("socket,id=leader,fd={FD_LEADER}"));
        arg("-object", "monitor-qmp,id=leader,chardev=leader".into());
    }

    let mut command = Command::new("qemu-system-x86_64");
    command.args(args).fd_mappings(fds)?;
    if !o.shell {
        command.stdin(Stdio::null()).stdout(Stdio::null());
    }
    if silent {
        command.stderr(Stdio::null());
    }
    let child = command.spawn().context("cannot start QEMU")?;
    let connections = Connections {
        console,
        control,
        monitor,
        trace,
    };
    Ok((Qemu(child), connections))
}

/// Collects what the guest says: to standard output, to the log, to the scanner.
struct Listener {
    log: Option<File>,
    show_kernel: bool,
    show_script: bool,
    scanner: Scanner,
    started: Instant,
    boot: Option<Duration>,
    exit: Option<i32>,
}

impl Listener {
    fn print(&mut self, line: &str, show: bool) {
        if let Some(log) = &mut self.log {
            // A full disk must not end the run; the verdict does not depend on the log.
            let _ = writeln!(log, "{line}");
        }
        if show {
            // Nobody may be listening any more; the run still ends in order.
            let _ = writeln!(std::io::stdout(), "{line}");
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Console(line) => {
                self.scanner.line(&line);
                self.print(&line, self.show_kernel);
            }
            Event::Script(line) => self.print(&line, self.show_script),
            Event::Request(text) => self.print(&format!("vm: {text}"), self.show_kernel),
            Event::Started => self.boot = Some(self.started.elapsed()),
            Event::Exit(status) => self.exit = Some(status),
        }
    }
}

/// Waits until QEMU is gone or has to go.
fn watch(
    qemu: &mut Qemu,
    events: &Receiver<Event>,
    listener: &mut Listener,
    o: &Options,
) -> Result<End> {
    let deadline = listener.started + Duration::from_secs(o.timeout);
    let mut shutdown = None;
    loop {
        let mut closed = false;
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => listener.hear(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => closed = true,
        }
        if interrupted().load(Ordering::Relaxed) {
            return Ok(End::Interrupted);
        }
        if listener.exit.is_some() && shutdown.is_none() {
            shutdown = Some(Instant::now() + SHUTDOWN);
        }
        if closed {
            let status = qemu.0.wait()?;
            return Ok(match listener.exit {
                _ if o.shell && status.success() => End::Shell,
                Some(script) if status.success() => End::Script(script),
                _ => End::Died(status),
            });
        }
        let now = Instant::now();
        if shutdown.is_some_and(|t| now >= t) {
            return Ok(End::Timeout("the guest did not power off"));
        }
        if !o.shell && now >= deadline {
            return Ok(End::Timeout("the time limit was reached"));
        }
    }
}

/// Runs a guest to its end. `silent` keeps its output and QEMU's off the terminal.
pub fn run(o: &Options, silent: bool) -> Result<Outcome> {
    run_led(o, silent, None)
}

/// The same, with somebody who tells the script what to do next.
pub fn run_led(o: &Options, silent: bool, mut led: Option<Led>) -> Result<Outcome> {
    let kernel = Kernel::find(&o.kernel)?;
    let kvm = accel::use_kvm(o)?;
    let log = match &o.log {
        // QEMU writes the log of a shell itself.
        Some(file) if !o.shell => {
            let error = || format!("cannot write {}", file.display());
            Some(File::create(file).with_context(error)?)
        }
        _ => None,
    };
    interrupted();

    let leader = led.as_mut().and_then(|led| led.monitor.take());
    let (mut qemu, connections) = start(o, &kernel, kvm, silent, leader)?;
    let mut listener = Listener {
        log,
        show_kernel: !silent && !o.quiet,
        show_script: !silent,
        scanner: Scanner::new(),
        started: Instant::now(),
        boot: None,
        exit: None,
    };
    let (send, events) = channel();
    if let Some(console) = connections.console {
        let send = send.clone();
        std::thread::spawn(move || control::read_console(console, send));
    }
    let insns = o.insns.as_ref().map(std::path::absolute).transpose()?;
    let host = Host::new(connections.monitor, connections.trace, insns).led(led);
    std::thread::spawn(move || control::serve(connections.control, host, send));

    let end = watch(&mut qemu, &events, &mut listener, o)?;
    drop(qemu);
    // The readers end with QEMU; what they still had belongs to the log.
    for event in events.iter() {
        listener.hear(event);
    }
    Ok(Outcome {
        end,
        reports: listener.scanner.reports().to_vec(),
        boot: listener.boot,
    })
}
