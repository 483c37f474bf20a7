// SPDX-License-Identifier: GPL-2.0

//! The guest's root: concatenated cpio archives, which Linux unpacks in turn.
//! Programs and distribution modules change rarely and are cached as archives;
//! the script, copied files and our own modules are packed for every run.

use crate::kernel::{self, Kernel};
use crate::modules::{Database, USUAL};
use crate::options::{Iommu, Options};
use anyhow::{Context, Result, bail};
use cpio::newc::{Builder, ModeFileType, trailer};
use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use walkdir::WalkDir;

/// Programs of the toolbox that the guest has, with their shared libraries.
const PROGRAMS: &[&str] = &["/usr/bin/fio", "/usr/bin/lspci", "/usr/sbin/mkfs.ext4"];
/// Programs of this tree that the guest has.
const OWN_PROGRAMS: &[&str] = &["races", "iommu-info"];
const BUSYBOX: &str = "/usr/bin/busybox";
const INIT: &str = include_str!("../guest/init");
const MAIN: &str = include_str!("../guest/main");

/// A cpio archive in the making.
struct Archive<'a> {
    out: &'a mut dyn Write,
    known: BTreeSet<PathBuf>,
    inode: u32,
}

impl<'a> Archive<'a> {
    fn new(out: &'a mut dyn Write) -> Archive<'a> {
        Archive {
            out,
            known: BTreeSet::new(),
            inode: 0,
        }
    }

    fn entry(&mut self, path: &str, kind: ModeFileType, mode: u32, data: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some(dir) = Path::new(path).parent() {
            self.dir(dir)?;
        }
        self.write_entry(path, kind, mode, data)
    }

    fn write_entry(
        &mut self,
        path: &str,
        kind: ModeFileType,
        mode: u32,
        data: &[u8],
    ) -> Result<()> {
        self.inode += 1;
        let mut w = Builder::new(path)
            .ino(self.inode)
            .mode(mode)
            .set_mode_file_type(kind)
            .write(&mut *self.out, u32::try_from(data.len())?);
        w.write_all(data)?;
        w.finish()?;
        Ok(())
    }

    /// A directory and its parents, each once.
    fn dir(&mut self, dir: &Path) -> Result<()> {
        let mut parents: Vec<_> = dir.ancestors().filter(|d| *d != Path::new("")).collect();
        parents.reverse();
        for d in parents {
            if self.known.insert(d.to_path_buf()) {
                let name = d.to_str().context("file name is not UTF-8")?.to_string();
                self.write_entry(&name, ModeFileType::Directory, 0o755, b"")?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entry(path, ModeFileType::Regular, mode, data)
    }

    fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.entry(path, ModeFileType::Symlink, 0o777, to.as_bytes())
    }

    fn host_file(&mut self, path: &str, source: &Path) -> Result<()> {
        let read = || format!("cannot read {}", source.display());
        let data = fs::read(source).with_context(read)?;
        let mode = fs::metadata(source)?.permissions().mode() & 0o777;
        self.file(path, mode, &data)
    }

    /// A file or a directory with all that is in it.
    fn host_tree(&mut self, path: &str, source: &Path) -> Result<()> {
        for item in WalkDir::new(source).follow_links(true) {
            let item = item?;
            let rest = item.path().strip_prefix(source)?;
            let to = if rest == Path::new("") {
                PathBuf::from(path)
            } else {
                Path::new(path).join(rest)
            };
            let to = to.to_str().context("file name is not UTF-8")?;
            if item.file_type().is_dir() {
                self.dir(Path::new(to.trim_start_matches('/')))?;
            } else {
                self.host_file(to, item.path())?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        trailer(self.out)?;
        Ok(())
    }
}

/// The archive `name` in the cache, made by `build` unless one for `key` is there.
fn cached(
    name: &str,
    key: impl Hash,
    build: impl FnOnce(&mut Archive) -> Result<()>,
) -> Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    let dir = kernel::cache()?.join("initramfs");
    fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{name}-{:016x}.cpio", hasher.finish()));
    if !path.exists() {
        eprintln!("vm: packing the guest's {name} (once)");
        let mut data = Vec::new();
        let mut archive = Archive::new(&mut data);
        build(&mut archive)?;
        archive.finish()?;
        // Complete or absent, whoever else is doing the same.
        let mut tmp = tempfile::NamedTempFile::new_in(&dir)?;
        tmp.write_all(&data)?;
        tmp.persist(&path)?;
    }
    Ok(path)
}

/// What identifies a file without reading it.
fn stamp(path: &str) -> Result<(String, u64, i64)> {
    let m = fs::metadata(path).with_context(|| format!("the toolbox lacks {path}"))?;
    Ok((path.to_string(), m.size(), m.mtime()))
}

fn output(program: &str, args: &[&str]) -> Result<String> {
    let out = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !out.status.success() {
        bail!("{program} {} failed", args.join(" "));
    }
    Ok(String::from_utf8(out.stdout)?)
}

fn shared_libraries(program: &str) -> Result<Vec<String>> {
    let ldd = output("ldd", &[program])?;
    let words = ldd.split_whitespace().filter(|w| w.starts_with('/'));
    Ok(words.map(String::from).collect())
}

/// busybox, fio and the like.
fn programs() -> Result<PathBuf> {
    let mut key = vec![stamp(BUSYBOX)?];
    for p in PROGRAMS {
        key.push(stamp(p)?);
    }
    cached("programs", (key, INIT), |archive| {
        for dir in ["proc", "sys", "dev", "tmp", "run", "modules", "vm", "mnt"] {
            archive.dir(Path::new(dir))?;
        }
        archive.file("init", 0o755, INIT.as_bytes())?;
        archive.host_file("bin/busybox", Path::new(BUSYBOX))?;
        let mut libraries = BTreeSet::new();
        let mut own = BTreeSet::new();
        for program in PROGRAMS {
            archive.host_file(program, Path::new(program))?;
            own.insert(program.rsplit('/').next().unwrap_or_default());
            libraries.extend(shared_libraries(program)?);
        }
        for library in &libraries {
            archive.host_file(library, Path::new(library))?;
        }
        for applet in output(BUSYBOX, &["--list"])?.lines() {
            if applet != "busybox" && !own.contains(applet) {
                archive.link(&format!("bin/{applet}"), "busybox")?;
            }
        }
        Ok(())
    })
}

/// The distribution's modules, unpacked, below /lib/modules.
fn distribution_modules(kernel: &Kernel, wanted: &[String]) -> Result<PathBuf> {
    let cache = kernel::cache()?.join("initramfs");
    fs::create_dir_all(&cache)?;
    let mut wanted = wanted.to_vec();
    wanted.sort();
    let image = stamp(&kernel.image().display().to_string())?;
    cached(
        "modules",
        (image, &kernel.release, &wanted, USUAL),
        |archive| {
            let database = Database::load(kernel, &cache)?;
            let stage = tempfile::tempdir()?;
            let root = Path::new("lib/modules").join(&kernel.release);
            for file in database.closure(&wanted, USUAL)? {
                unpack(
                    &kernel.modules().join(&file),
                    &stage.path().join(&root).join(&file),
                )?;
            }
            fs::create_dir_all(stage.path().join(&root))?;
            for list in [
                "modules.builtin",
                "modules.builtin.modinfo",
                "modules.order",
            ] {
                let from = kernel.modules().join("kernel").with_file_name(list);
                if from.exists() {
                    fs::copy(from, stage.path().join(&root).join(list))?;
                }
            }
            let base = stage.path().display().to_string();
            output("depmod", &["-b", &base, &kernel.release])?;
            archive.host_tree("/", stage.path())
        },
    )
}

/// Copies a module, without the compression its name tells of.
fn unpack(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("no parent")?)?;
    let tool = match from.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        Some("gz") => "gzip",
        _ => {
            fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
            return Ok(());
        }
    };
    let status = Command::new(tool)
        .args(["-q", "-dc"])
        .arg(from)
        .stdout(fs::File::create(to.with_extension(""))?)
        .status()
        .with_context(|| format!("cannot run {tool}"))?;
    if !status.success() {
        bail!("cannot unpack {}", from.display());
    }
    Ok(())
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Programs of this tree.
fn own_programs(archive: &mut Archive, o: &Options) -> Result<()> {
    // Not with the other programs: a cached archive for each of its versions would pile up.
    let mut libraries = BTreeSet::new();
    for name in OWN_PROGRAMS {
        let program = kernel::guest_program(name)?;
        archive.host_file(&format!("usr/bin/{name}"), &program)?;
        let path = program.to_str().context("file name is not UTF-8")?;
        libraries.extend(shared_libraries(path)?);
    }
    if o.kselftest {
        let dir = kernel::selftests()?;
        archive.host_tree("kselftest", &dir)?;
        for program in fs::read_dir(&dir)? {
            let path = program?.path();
            libraries.extend(shared_libraries(&path.display().to_string())?);
        }
    }
    for library in &libraries {
        archive.host_file(library, Path::new(library))?;
    }
    Ok(())
}

/// A module as `make INSTALL_MOD_STRIP=1 modules_install` would have it: nine tenths of one is debug
/// information, which it takes the guest time to unpack.
fn stripped(module: &Path) -> Result<Vec<u8>> {
    let out = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip")
        .args(["--strip-debug", "-o"])
        .args([out.path(), module])
        .status()
        .context("cannot run strip")?;
    if !status.success() {
        bail!("cannot strip {}", module.display());
    }
    Ok(fs::read(out.path())?)
}

/// The modules that are tested.
fn own_modules(archive: &mut Archive, o: &Options, kernel: &Kernel) -> Result<()> {
    let modules = match &o.modules {
        Some(dir) if !dir.is_dir() => bail!("{} is not a directory", dir.display()),
        Some(dir) => dir.clone(),
        None => kernel.our_modules(o.inject),
    };
    if o.inject && !modules.is_dir() {
        bail!("no modules with injection points: tools/build KERNEL INJECT=1 makes them");
    }
    if modules.is_dir() {
        for item in WalkDir::new(&modules) {
            let item = item?;
            let name = item.file_name().to_string_lossy();
            if item.file_type().is_file() && name.ends_with(".ko") {
                archive.file(&format!("modules/{name}"), 0o644, &stripped(item.path())?)?;
            }
        }
    }
    Ok(())
}

/// Writes the files of this run to `out`.
pub fn write_files(out: &mut dyn Write, o: &Options, kernel: &Kernel) -> Result<()> {
    let mut archive = Archive::new(out);
    let tree = kernel::tree();
    let mut env = String::new();
    for pair in &o.env {
        match pair.split_once('=') {
            Some((name, value)) => env += &format!("export {name}={}\n", quote(value)),
            None => bail!("--env wants NAME=VALUE, not '{pair}'"),
        }
    }
    if o.in_tree && o.iommu == Iommu::Virtio {
        // It is a module, so that the kernel's parameters do not decide on it.
        env += "modprobe virtio_iommu\n";
    }
    archive.file("vm/env", 0o644, env.as_bytes())?;
    archive.file("vm/main", 0o644, MAIN.as_bytes())?;
    match &o.script {
        None => archive.file("vm/shell", 0o644, b"")?,
        Some(script) => {
            let args: Vec<String> = o.args.iter().map(|a| quote(a)).collect();
            let run = format!("exec sh /vm/script {}\n", args.join(" "));
            archive.file("vm/run", 0o755, run.as_bytes())?;
            archive.host_file("vm/script", script)?;
        }
    }
    let lib = tree.join("selftests/lib.sh");
    if lib.exists() {
        archive.host_file("selftests/lib.sh", &lib)?;
    }
    let ktap = "tools/testing/selftests/kselftest/ktap_helpers.sh";
    archive.host_file("selftests/ktap_helpers.sh", &kernel.source().join(ktap))?;

    // A Debian system has the programs and modules that its packages give it.
    if o.system.is_none() {
        own_programs(&mut archive, o)?;
        own_modules(&mut archive, o, kernel)?;
    }
    for copy in &o.copy {
        let (from, to) = match copy.split_once(':') {
            Some((from, to)) => (Path::new(from), to.to_string()),
            None => {
                let from = Path::new(copy);
                let name = from.file_name().context("--copy of what?")?;
                (from, name.to_string_lossy().into_owned())
            }
        };
        archive.host_tree(&to, from)?;
    }
    archive.finish()
}

/// Writes the whole initramfs to `out`.
pub fn write(out: &mut fs::File, o: &Options, kernel: &Kernel) -> Result<()> {
    for part in [programs()?, distribution_modules(kernel, &o.load)?] {
        std::io::copy(&mut fs::File::open(part)?, out)?;
        // An archive starts at a multiple of four bytes.
        let length = out.metadata()?.len();
        out.write_all(&[0; 4][..(length.wrapping_neg() % 4) as usize])?;
    }
    let mut last = std::io::BufWriter::new(out);
    write_files(&mut last, o, kernel)?;
    last.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpio::newc::Reader;

    fn names(mut data: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        loop {
            let reader = Reader::new(data).unwrap();
            if reader.entry().is_trailer() {
                return names;
            }
            names.push(reader.entry().name().to_string());
            data = reader.finish().unwrap();
        }
    }

    #[test]
    fn parents_come_before_files_and_once() {
        let mut data = Vec::new();
        let mut archive = Archive::new(&mut data);
        archive.file("/a/b/c", 0o644, b"hello").unwrap();
        archive.file("a/b/d", 0o644, b"").unwrap();
        archive.link("bin/sh", "busybox").unwrap();
        archive.finish().unwrap();
        assert_eq!(
            names(&data),
            ["a", "a/b", "a/b/c", "a/b/d", "bin", "bin/sh"]
        );
    }

    #[test]
    fn a_directory_is_copied_with_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        let mut data = Vec::new();
        let mut archive = Archive::new(&mut data);
        archive.host_tree("/to", dir.path()).unwrap();
        archive.finish().unwrap();
        assert_eq!(names(&data), ["to", "to/sub", "to/sub/file"]);
    }

    #[test]
    fn words_survive_the_shell() {
        let word = "it's $HOME `x` \\ \"q\"";
        let out = Command::new("sh")
            .args(["-c", &format!("printf %s {}", quote(word))])
            .output()
            .unwrap();
        assert_eq!(String::from_utf8(out.stdout).unwrap(), word);
    }
}
