// SPDX-License-Identifier: GPL-2.0

//! System calls and ports: all that needs `unsafe` in this program.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Result};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::NonNull;
use std::sync::Mutex;

/// An ioctl whose argument is a number, or a pointer to something that lives long enough.
fn ioctl(file: RawFd, request: u64, argument: usize) -> Result<i32> {
    // SAFETY: The callers below pass what the request expects.
    match unsafe { libc::ioctl(file, request, argument) } {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

/// An ioctl that takes a number and returns one. Not for requests that take a pointer.
pub fn ioctl_number(file: &File, request: u64, number: usize) -> Result<i32> {
    ioctl(file.as_raw_fd(), request, number)
}

/// An ioctl on a structure, whose layout must be the one that the request has.
pub fn ioctl_struct<T: Copy>(file: &File, request: u64, argument: &mut T) -> Result<i32> {
    ioctl(
        file.as_raw_fd(),
        request,
        std::ptr::from_mut(argument).addr(),
    )
}

/// An ioctl on a string that returns a new file.
pub fn ioctl_open(file: &File, request: u64, name: &std::ffi::CStr) -> Result<File> {
    let fd = ioctl(file.as_raw_fd(), request, name.as_ptr().addr())?;
    // SAFETY: The kernel has just made it for us.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Lets this process lock at most `bytes` bytes.
pub fn limit_locked_memory(bytes: u64) -> Result<()> {
    let limit = libc::rlimit {
        rlim_cur: bytes,
        rlim_max: bytes,
    };
    // SAFETY: Reads the structure.
    result(unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limit) }.into())
}

/// Becomes a user who owns nothing, without capabilities.
pub fn drop_privileges() -> Result<()> {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: Takes numbers.
    result(unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) }.into())
}

/// Mapped memory: pages of our own, or a device's registers.
pub struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: The memory belongs to the object, and is accessed by whole words only.
unsafe impl Send for Map {}
// SAFETY: As above; such accesses may meet those of a device as well.
unsafe impl Sync for Map {}

impl Map {
    fn new(length: usize, flags: i32, fd: RawFd, offset: u64) -> Result<Map> {
        // SAFETY: A new mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset as libc::off_t,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Map { start, length })
    }

    /// Zeroed pages that stay where they are in memory for as long as they are pinned.
    pub fn pages(length: usize) -> Result<Map> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Map::new(length, flags, -1, 0)
    }

    /// Zeroed huge pages, of those that are reserved; `page` is the size of one.
    pub fn huge_pages(page: u64, length: usize) -> Result<Map> {
        let size = page.trailing_zeros() as i32;
        let kind = libc::MAP_HUGETLB | (size << libc::MAP_HUGE_SHIFT);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Map::new(length, flags | kind, -1, 0)
    }

    /// A part of a file, such as a device's registers.
    pub fn file(file: &File, offset: u64, length: usize) -> Result<Map> {
        Map::new(length, libc::MAP_SHARED, file.as_raw_fd(), offset)
    }

    pub fn address(&self) -> usize {
        self.start.as_ptr().addr()
    }

    fn place(&self, offset: usize) -> NonNull<u32> {
        assert!(offset % 4 == 0 && offset + 4 <= self.length, "outside");
        // SAFETY: Inside the mapping, as was just seen.
        unsafe { self.start.add(offset) }.cast()
    }

    pub fn read(&self, offset: usize) -> u32 {
        // SAFETY: Aligned and inside, see `place`.
        unsafe { self.place(offset).read_volatile() }
    }

    pub fn write(&self, offset: usize, value: u32) {
        // SAFETY: Aligned and inside, see `place`.
        unsafe { self.place(offset).write_volatile(value) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: The mapping is ours, and goes with the object.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Configuration space by ports, which asks no driver and no file of sysfs.
pub struct ConfigPorts(());

/// One address register for all.
static PORTS: Mutex<()> = Mutex::new(());

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;

impl ConfigPorts {
    /// For the calling thread and those that it starts. Needs root.
    pub fn new() -> Result<ConfigPorts> {
        // SAFETY: Allows port accesses, of which only those below are made.
        match unsafe { libc::iopl(3) } {
            0 => Ok(ConfigPorts(())),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// A word of the first 256 bytes; `device` is bus, device and function as in a source-id.
    pub fn read(&self, device: u16, offset: u8) -> u32 {
        let _lock = PORTS.lock();
        out(ADDRESS, address(device, offset));
        input(DATA)
    }

    pub fn write(&self, device: u16, offset: u8, value: u32) {
        let _lock = PORTS.lock();
        out(ADDRESS, address(device, offset));
        out(DATA, value);
    }
}

fn address(device: u16, offset: u8) -> u32 {
    0x8000_0000 | (u32::from(device) << 8) | u32::from(offset & !3)
}

fn out(port: u16, value: u32) {
    // SAFETY: Allowed by iopl(); these two ports only reach configuration space.
    unsafe {
        std::arch::asm!("out dx, eax", in("dx") port, in("eax") value, options(nomem, nostack))
    }
}

fn input(port: u16) -> u32 {
    let value;
    // SAFETY: As above.
    unsafe {
        std::arch::asm!("in eax, dx", in("dx") port, out("eax") value, options(nomem, nostack))
    }
    value
}

/// Number of the calling thread, as in /proc/self/task.
pub fn thread_id() -> i32 {
    // SAFETY: No requirements.
    unsafe { libc::gettid() }
}

fn result(returned: i64) -> Result<()> {
    match returned {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Loads a module, in the calling thread.
pub fn load_module(file: &File, parameters: &std::ffi::CStr) -> Result<()> {
    let (fd, parameters) = (file.as_raw_fd(), parameters.as_ptr());
    // SAFETY: An open file and a string.
    result(unsafe { libc::syscall(libc::SYS_finit_module, fd, parameters, 0) })
}

/// Unloads a module that nobody uses.
pub fn unload_module(name: &std::ffi::CStr) -> Result<()> {
    // SAFETY: A string.
    result(unsafe { libc::syscall(libc::SYS_delete_module, name.as_ptr(), libc::O_NONBLOCK) })
}
