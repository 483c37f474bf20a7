// SPDX-License-Identifier: GPL-2.0

//! A connection to QEMU's monitor, with the greeting done at the first use.

use qapi::qmp::{self, CpuInfoFast};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::io::BufReader;
use std::os::unix::net::UnixStream;

type Qmp = qapi::Qmp<qapi::Stream<BufReader<UnixStream>, UnixStream>>;

/// Ours of its ends.
pub struct Monitor {
    stream: Option<UnixStream>,
    qmp: Option<Qmp>,
}

impl Monitor {
    /// The other end is QEMU's.
    pub fn new(stream: UnixStream) -> Monitor {
        Monitor {
            stream: Some(stream),
            qmp: None,
        }
    }

    /// Ready for commands. Waits for QEMU to start.
    pub fn get(&mut self) -> Result<&mut Qmp, String> {
        if let Some(stream) = self.stream.take() {
            let read = stream.try_clone().map_err(|e| e.to_string())?;
            let mut qmp = qapi::Qmp::new(qapi::Stream::new(BufReader::new(read), stream));
            qmp.handshake().map_err(|e| e.to_string())?;
            self.qmp = Some(qmp);
        }
        self.qmp.as_mut().ok_or_else(|| "no monitor".to_string())
    }

    /// Has the guest stand still, its clock too, so that it does not notice.
    pub fn hold(&mut self) -> Result<(), String> {
        self.told(&qmp::stop {})
    }

    /// Has it go on.
    pub fn go_on(&mut self) -> Result<(), String> {
        self.told(&qmp::cont {})
    }

    /// Has each thread of QEMU run on a CPU of its own kind: the guest's n-th CPU on the host's n-th, and all else on
    /// the host's last one. Threads that there will be inherit that.
    pub fn pin(&mut self) -> Result<(), String> {
        let cpus = self.get()?.execute(&qmp::query_cpus_fast {});
        let cpus = cpus.map_err(|e| e.to_string())?;
        let thread = |cpu: &CpuInfoFast| match cpu {
            CpuInfoFast::x86_64(cpu) => Ok(cpu.thread_id),
            other => Err(format!("a guest has a CPU of another kind: {other:?}")),
        };
        let of_guest: Vec<i64> = cpus.iter().map(thread).collect::<Result<_, _>>()?;
        let first = of_guest.first().ok_or("no CPU")?;
        let hosts = std::thread::available_parallelism().map_err(|e| e.to_string())?;
        let tasks = std::fs::read_dir(format!("/proc/{first}/task")).map_err(|e| e.to_string())?;
        for task in tasks {
            let name = task.map_err(|e| e.to_string())?.file_name();
            let id: i32 = name
                .to_string_lossy()
                .parse()
                .map_err(|_| "no number of a thread")?;
            let last = hosts.get() - 1;
            let at = of_guest.iter().position(|cpu| *cpu == i64::from(id));
            let mut on = CpuSet::new();
            on.set(at.map_or(last, |n| n.min(last)));
            sched_setaffinity(Pid::from_raw(id), &on).map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    fn told(&mut self, command: &impl qapi::qmp::QmpCommand) -> Result<(), String> {
        let qmp = self.get()?;
        qmp.execute(command).map_err(|e| e.to_string())?;
        // What happened is not asked for; it would be kept.
        qmp.events().for_each(drop);
        Ok(())
    }
}
