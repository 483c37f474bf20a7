// SPDX-License-Identifier: GPL-2.0

//! Processes that have files of VFIO open: `/proc/PID/fd`.

use super::uses::Mount;
use super::{Absence, Found, Root};
use crate::address::Address;
use crate::model::{Holder, Machine};

/// What an open file is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Group(u32),
    Device(String),
    Address(Address),
}

/// What the link of a file descriptor says; of a device that was opened through its group `fdinfo` says
/// which one it is (`vfio_device_show_fdinfo`).
fn held(link: &str, info: impl FnOnce() -> String) -> Option<Held> {
    if let Some(name) = link.strip_prefix("/dev/vfio/devices/") {
        return Some(Held::Device(name.to_string()));
    }
    if let Some(number) = link.strip_prefix("/dev/vfio/") {
        return number.parse().ok().map(Held::Group);
    }
    if !link.starts_with("anon_inode:[vfio-device") {
        return None;
    }
    let info = info();
    let path = info
        .lines()
        .find_map(|line| line.strip_prefix("vfio-device-syspath:"))?;
    // The device is the last PCI address of the path.
    let mut names = path.trim().rsplit('/');
    names.find_map(|name| name.parse().ok()).map(Held::Address)
}

fn group_of(machine: &Machine, held: &Held) -> Option<u32> {
    let by_name = |name: &str| {
        let mut devices = machine.devices.values();
        devices.find(|device| device.vfio.as_deref() == Some(name))
    };
    match held {
        Held::Group(number) => Some(*number),
        Held::Device(name) => by_name(name)?.group,
        Held::Address(address) => machine.devices.get(address)?.group,
    }
}

/// Why processes may not be seen at all, in words.
fn unseen(root: &Root, processes: &Found<Vec<String>>, mounts: &[Mount]) -> Option<&'static str> {
    let Ok(processes) = processes else {
        return Some("/proc cannot be read: which processes hold a group is not known");
    };
    // The namespace that the kernel starts with has a fixed number (PROC_PID_INIT_INO).
    let namespace = root.link("proc/self/ns/pid");
    if namespace.is_ok_and(|link| link != "pid:[4026531836]") {
        return Some("only processes of this PID namespace are seen: others may hold a group");
    }
    let hides = |m: &Mount| m.kind == "proc" && m.options.contains("hidepid=");
    let first = processes.iter().any(|name| name == "1");
    (!first && mounts.iter().any(hides))
        .then_some("/proc hides the processes of other users (hidepid): they may hold a group")
}

/// What is said where the files of `hidden` processes were not readable.
fn hidden_text(hidden: usize) -> Option<String> {
    match hidden {
        0 => None,
        1 => Some(
            "the open files of 1 process cannot be read by this user: it may hold a group".into(),
        ),
        _ => Some(format!(
            "the open files of {hidden} processes cannot be read by this user: they may hold a group"
        )),
    }
}

/// Adds the holders to the groups of `machine`.
pub(super) fn add(root: &Root, machine: &mut Machine, mounts: &[Mount]) {
    let mut hidden = 0;
    let processes = root.names("proc");
    let mut texts: Vec<String> = Vec::new();
    texts.extend(unseen(root, &processes, mounts).map(String::from));
    for process in processes.unwrap_or_default() {
        let Ok(pid) = process.parse() else {
            continue;
        };
        let files = match root.names(&format!("proc/{pid}/fd")) {
            Ok(files) => files,
            Err(Absence::Denied) => {
                hidden += 1;
                continue;
            }
            Err(Absence::Missing) => continue,
        };
        let mut denied = false;
        for file in files {
            let link = match root.link(&format!("proc/{pid}/fd/{file}")) {
                Ok(link) => link,
                Err(absence) => {
                    denied |= absence == Absence::Denied;
                    continue;
                }
            };
            let info = || {
                root.text(&format!("proc/{pid}/fdinfo/{file}"))
                    .unwrap_or_default()
            };
            let Some(held) = held(&link, info) else {
                continue;
            };
            let group = group_of(machine, &held).and_then(|n| machine.groups.get_mut(&n));
            let Some(group) = group else {
                continue;
            };
            let name = root.text(&format!("proc/{pid}/comm")).unwrap_or_default();
            let file = match held {
                Held::Address(address) => format!("device {address}"),
                _ => link,
            };
            group.holders.insert(Holder { pid, name, file });
        }
        hidden += usize::from(denied);
    }
    texts.extend(hidden_text(hidden));
    machine.hidden_processes = !texts.is_empty();
    machine.missing.extend(texts);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_processes_are_counted() {
        assert_eq!(hidden_text(0), None);
        assert!(hidden_text(1).unwrap().contains("1 process cannot"));
        assert!(hidden_text(2).unwrap().contains("2 processes cannot"));
    }

    #[test]
    fn links() {
        let none = String::new;
        assert_eq!(held("/dev/vfio/12", none), Some(Held::Group(12)));
        assert_eq!(held("/dev/vfio/vfio", none), None);
        assert_eq!(held("/dev/null", none), None);
        assert_eq!(
            held("/dev/vfio/devices/vfio3", none),
            Some(Held::Device("vfio3".into()))
        );
        let info = || {
            "pos:\t0\nvfio-device-syspath: /sys/devices/pci0000:00/0000:00:02.0/0000:01:00.0\n"
                .to_string()
        };
        let address = "0000:01:00.0".parse().unwrap();
        assert_eq!(
            held("anon_inode:[vfio-device]", info),
            Some(Held::Address(address))
        );
        assert_eq!(held("anon_inode:[vfio-device]", none), None);
    }
}
