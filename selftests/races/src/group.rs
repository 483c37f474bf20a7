// SPDX-License-Identifier: GPL-2.0

//! The steps of [`model`](crate::model), taken by a real group: rust_kdma and rust_udma are
//! bound and unbound by threads that are held where a step ends (selftests/modules/owner).

use crate::file;
use crate::inject::{self, Points};
use crate::model::{Answer, Errno, Key, Kind, Step, Type};
use crate::oracle::Oracle;
use crate::raw;
use crate::sysfs::Device;
use anyhow::{bail, ensure, Context, Result};
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(50);
/// Far more often than a gate looks whether it was opened.
const POLL: Duration = Duration::from_micros(100);
const ENOMEM: i32 = 12;
const WRITTEN: &str = "ok";

/// The kernel's answer, if it is one that the model knows.
pub fn answer(result: Result<()>) -> Result<Answer> {
    let Err(error) = result else {
        return Ok(Ok(()));
    };
    let known = [Errno::Perm, Errno::Busy, Errno::Invalid, Errno::Already];
    let number = file::errno(&error);
    match known.into_iter().find(|e| number == Some(*e as i32)) {
        Some(errno) => Ok(Err(errno)),
        None => Err(error),
    }
}

fn driver(kind: Kind) -> &'static str {
    match kind {
        Kind::Kernel => "rust_kdma",
        Kind::Managed => "rust_udma",
    }
}

/// Where a driver can be held: at its probe's end, in remove, in devres.
fn point(kind: Kind, step: &str) -> String {
    format!("{}.{step}", &driver(kind)["rust_".len()..])
}

/// A thread that binds or unbinds.
pub struct Thread {
    id: i32,
    handle: JoinHandle<Result<()>>,
}

impl Thread {
    pub fn start(work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Thread> {
        let (sender, receiver) = mpsc::channel();
        let handle = thread::spawn(move || {
            sender.send(raw::thread_id())?;
            work()
        });
        let id = receiver.recv()?;
        Ok(Thread { id, handle })
    }

    /// Waits until it sleeps in the kernel, where it waits for a lock.
    pub fn wait_asleep(&self) -> Result<()> {
        let path = format!("/proc/self/task/{}/stat", self.id);
        let asleep = || {
            // "id (name) state ..."
            let stat = file::read(Path::new(&path)).unwrap_or_default();
            let state = stat.rsplit_once(") ").and_then(|(_, s)| s.chars().next());
            matches!(state, Some('S' | 'D'))
        };
        ensure!(file::wait_for(LIMIT, asleep), "a thread does not wait");
        Ok(())
    }

    pub fn join(self) -> Result<()> {
        let joined = self.handle.join();
        joined.unwrap_or_else(|_| bail!("a thread died"))
    }
}

/// A device of the group.
pub struct Member {
    pub device: Device,
    kind: Kind,
    thread: Option<Thread>,
    /// Where the device finds its page: by physical address, or as the DMA API has mapped it.
    page: u64,
    /// A driver that manages DMA has one, which maps the page.
    domain: u64,
}

impl Member {
    fn new(address: &str) -> Member {
        Member {
            device: Device::new(address),
            kind: Kind::Kernel,
            thread: None,
            page: 0,
            domain: 0,
        }
    }

    fn place(&self, step: &str) -> String {
        format!("{} {}", point(self.kind, step), self.device.address())
    }

    fn gate(&self, step: &str) -> Result<()> {
        inject::command(&format!("gate {}", self.place(step)))
    }

    fn open(&self, step: &str) -> Result<()> {
        inject::command(&format!("open {}", self.place(step)))
    }

    /// Waits for the thread: true if it is held, false if it has ended.
    fn is_held(&self, step: &str) -> Result<bool> {
        let point = point(self.kind, step);
        let address = self.device.address();
        let start = Instant::now();
        while start.elapsed() < LIMIT {
            let held = inject::rules()?.iter().any(|r| {
                r.point == point
                    && r.kind == "gate"
                    && r.fields.get("device").is_some_and(|d| d == address)
                    && r.number("waiting") == Some(1)
            });
            if held || self.thread.as_ref().is_none_or(|t| t.handle.is_finished()) {
                return Ok(held);
            }
            thread::sleep(POLL);
        }
        bail!("{address} does not come to {point}");
    }

    fn held(&self, step: &str) -> Result<()> {
        ensure!(self.is_held(step)?, "{} is passed", self.place(step));
        Ok(())
    }

    fn join(&mut self) -> Result<()> {
        let thread = self.thread.take().context("no thread")?;
        thread.join()
    }

    /// Runs a command of the driver's.
    pub fn run(&self, command: &str) -> Result<String> {
        self.oracle().run(command)
    }

    /// The file of its driver's commands.
    pub fn oracle(&self) -> Oracle {
        Oracle::new(&format!("{}-{}", driver(self.kind), self.device.address()))
    }

    /// Begins to bind; ends before `dma_configure` only if that waits for the group's lock.
    pub fn begin(&mut self, kind: Kind) -> Result<()> {
        self.kind = kind;
        self.device.driver_override(Some(driver(kind)))?;
        self.gate("probe.1")?;
        let device = self.device.clone();
        self.thread = Some(Thread::start(move || device.bind(driver(kind)))?);
        Ok(())
    }

    /// Waits until the thread of [`begin`](Self::begin) sleeps.
    pub fn wait_asleep(&self) -> Result<()> {
        self.thread.as_ref().context("no thread")?.wait_asleep()
    }

    /// Waits until `dma_configure` is over.
    pub fn configured(&mut self) -> Result<Answer> {
        if self.is_held("probe.1")? {
            return Ok(Ok(()));
        }
        self.open("probe.1")?;
        let refused = answer(self.join())?;
        ensure!(refused.is_err(), "the gate was passed");
        Ok(refused)
    }

    fn probed(&mut self) -> Result<()> {
        self.open("probe.1")?;
        self.join()?;
        self.page = match self.kind {
            Kind::Kernel => self.oracle().number("buffer", "iova")?,
            Kind::Managed => {
                let page = self.oracle().number("page", "phys")?;
                self.domain = self.oracle().number("domain-new", "domain")?;
                self.run(&format!("domain-map {} {page:#x} 1 rw", self.domain))?;
                page
            }
        };
        Ok(())
    }

    fn probe_fails(&mut self) -> Result<()> {
        let failing = self.place("probe.2").replacen(' ', " 12 1 ", 1);
        inject::command(&format!("fail {failing}"))?;
        if self.kind == Kind::Kernel {
            self.gate("devres")?;
            self.open("probe.1")?;
            return self.held("devres");
        }
        self.open("probe.1")?;
        self.finished_failed()
    }

    fn finished_failed(&mut self) -> Result<()> {
        let result = self.join();
        let number = result.err().as_ref().and_then(file::errno);
        ensure!(number == Some(ENOMEM), "a failed probe gives {number:?}");
        Ok(())
    }

    fn unbind(&mut self) -> Result<()> {
        self.gate("remove")?;
        let device = self.device.clone();
        self.thread = Some(Thread::start(move || device.unbind())?);
        self.held("remove")
    }

    fn cleanup(&mut self) -> Result<()> {
        if self.kind == Kind::Kernel {
            self.gate("devres")?;
            self.open("remove")?;
            return self.held("devres");
        }
        self.open("remove")?;
        self.join()
    }

    fn finish(&mut self, failed: bool) -> Result<()> {
        if self.kind == Kind::Managed {
            return Ok(());
        }
        self.open("devres")?;
        if failed {
            self.finished_failed()
        } else {
            self.join()
        }
    }

    fn command(&self, command: &str) -> Result<Answer> {
        answer(self.run(command).map(drop))
    }

    /// Whether a write by this device arrives at `page`.
    pub fn reaches(&self, page: u64) -> Result<bool> {
        let answer = self.run(&format!("dma write {page:#x} 4"))?;
        ensure!(answer == WRITTEN || answer == "tx_fail", "dma: {answer}");
        Ok(answer == WRITTEN)
    }

    /// Where its page is.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// Claims, if its driver manages DMA and is bound.
    pub fn claim(&self, key: Key) -> Result<Answer> {
        self.command(&format!("claim {key}"))
    }

    /// Ends the claim.
    pub fn release(&self) -> Result<()> {
        self.run("release").map(drop)
    }
}

/// A group, whose devices go through steps.
pub struct Group {
    pub points: Points,
    pub members: Vec<Member>,
    failed: Vec<bool>,
}

impl Group {
    /// The devices, which have no driver, are of one group.
    pub fn new(addresses: &[String]) -> Result<Group> {
        let members: Vec<Member> = addresses.iter().map(|a| Member::new(a)).collect();
        let number = members.first().context("no device")?.device.group()?;
        for member in &members {
            ensure!(member.device.group()? == number, "different groups");
        }
        Ok(Group {
            points: Points::new()?,
            failed: vec![false; members.len()],
            members,
        })
    }

    /// Takes a step. `Bind` is begun with `Configure`. A driver that manages DMA has gone all
    /// the way with `Cleanup`, with its claim; and any whose `Configure` was refused.
    pub fn step(&mut self, at: usize, step: Step) -> Result<Answer> {
        let member = &mut self.members[at];
        match step {
            Step::Bind(kind) => member.kind = kind,
            Step::Configure => {
                self.failed[at] = false;
                member.begin(member.kind)?;
                return member.configured();
            }
            Step::Probed => member.probed()?,
            Step::ProbeFails => {
                self.failed[at] = true;
                member.probe_fails()?;
            }
            Step::Unbind => member.unbind()?,
            // A failed probe has come to devres without a stop.
            Step::Cleanup if self.failed[at] => {}
            Step::Cleanup => member.cleanup()?,
            Step::Finish => member.finish(self.failed[at])?,
            Step::Claim(key) => return member.claim(key),
            Step::Release => return member.command("release"),
            Step::Attach => return member.command(&format!("attach {}", member.domain)),
            Step::Detach => return member.command("detach"),
            Step::SetType(to) => return self.set_type(to),
        }
        Ok(Ok(()))
    }

    /// Takes steps until one is refused.
    pub fn steps(&mut self, at: usize, steps: &[Step]) -> Result<Answer> {
        for step in steps {
            let answer = self.step(at, *step);
            let answer = answer.with_context(|| format!("{step:?} of device {at}"))?;
            if answer.is_err() {
                return Ok(answer);
            }
        }
        Ok(Ok(()))
    }

    pub fn set_type(&self, to: Type) -> Result<Answer> {
        answer(self.members[0].device.set_group_type(type_name(to)))
    }
}

/// As sysfs has it.
pub fn type_name(of: Type) -> &'static str {
    match of {
        Type::Dma => "DMA",
        Type::DmaFq => "DMA-FQ",
        Type::Identity => "identity",
    }
}
