// SPDX-License-Identifier: GPL-2.0

//! Tests that run in a guest: scripts below selftests whose comments say which
//! machines they want.
//!
//!   # variant NAME: OPTIONS OF VM    one run for each; one at least
//!   # variant NAME on stock: OPTIONS on one kernel only, where others add nothing
//!   # kernels: stock debug           default: both
//!   # timeout: SECONDS               default: 120; debug kernels get four times that
//!   # modules: inject                our modules with injection points
//!   # options: OPTIONS OF VM         of all variants, before their own
//!   # long: NAME NAME                variants that only `check --long` runs: many minutes
//!   # extra: NAME NAME/KERNEL        variants that only `check --extra` runs, everywhere or there
//!   # skip amd virtio: REASON        why there is no variant for these of vtd, amd and virtio
//!
//! A variant with --in-tree is a control, to see that the test itself is right. It
//! runs on the stock kernel only: it is not the kernel's driver that is tested.

use crate::coverage::{Choice, Coverage, Skipped};
use crate::ktap::{Point, Results, Verdict};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The folders with the scripts. A test's name is its file's, whatever the folder.
pub const FOLDERS: &[&str] = &[
    "selftests/guest",
    "selftests/lazy",
    "selftests/lifecycle",
    "selftests/ownership",
];

/// The same for tests of the Debian package.
pub const PACKAGE: &[&str] = &["selftests/package"];

/// One run of one script: a machine and a kernel.
#[derive(Clone, Debug)]
pub struct GuestRun {
    /// TEST/VARIANT/KERNEL
    pub name: String,
    script: PathBuf,
    variant: String,
    kernel: String,
    options: Vec<String>,
    timeout: u64,
}

/// Seconds for a variant that only runs when it is asked for.
const LONG_TIMEOUT: u64 = 7200;

/// Which runs are wanted.
pub struct Selection {
    pub kernels: Vec<String>,
    pub long: bool,
    pub extra: bool,
}

/// What was found in scripts.
#[derive(Debug, Default)]
pub struct Found {
    pub runs: Vec<GuestRun>,
    pub skipped: Vec<Skipped>,
}

/// All runs of one script that are wanted, and what it says of IOMMUs.
fn parse(script: &Path, text: &str, selection: &Selection) -> Result<(Vec<GuestRun>, Coverage)> {
    let test = script.file_stem().unwrap_or_default().to_string_lossy();
    let mut variants: Vec<(&str, Option<&str>, Vec<String>)> = Vec::new();
    let mut wanted = vec!["stock", "debug"];
    let mut timeout = 120;
    let mut inject = false;
    let mut common: Vec<String> = Vec::new();
    let mut long_variants: Vec<&str> = Vec::new();
    let mut extra: Vec<&str> = Vec::new();
    let mut coverage = Coverage::default();
    for line in text.lines() {
        let Some((key, value)) = line.strip_prefix("# ").and_then(|l| l.split_once(':')) else {
            continue;
        };
        if let Some(name) = key.strip_prefix("variant ") {
            let (name, only) = match name.split_once(" on ") {
                Some((name, kernel)) => (name, Some(kernel)),
                None => (name, None),
            };
            if variants.iter().any(|(n, ..)| *n == name) {
                bail!("variant {name} is there twice");
            }
            if let Some(k) = only.filter(|k| !["stock", "debug"].contains(k)) {
                bail!("there is no kernel '{k}'");
            }
            let options = value.split_whitespace().map(String::from).collect();
            variants.push((name, only, options));
        } else if let Some(names) = key.strip_prefix("skip ") {
            coverage.skip(names, value)?;
        } else if key == "kernels" {
            wanted = value.split_whitespace().collect();
            if let Some(k) = wanted.iter().find(|k| !["stock", "debug"].contains(k)) {
                bail!("there is no kernel '{k}'");
            }
        } else if key == "timeout" {
            let number = value.trim().parse();
            timeout = number.with_context(|| format!("timeout '{}'", value.trim()))?;
        } else if key == "modules" {
            inject = match value.trim() {
                "inject" => true,
                other => bail!("there are no modules '{other}'"),
            };
        } else if key == "options" {
            common.extend(value.split_whitespace().map(String::from));
        } else if key == "long" {
            long_variants.extend(value.split_whitespace());
        } else if key == "extra" {
            extra.extend(value.split_whitespace());
        }
    }
    if variants.is_empty() {
        bail!("there is no '# variant NAME: OPTIONS' line");
    }
    let unknown = |l: &&&str| !variants.iter().any(|(name, ..)| name == *l);
    if let Some(name) = long_variants.iter().find(unknown) {
        bail!("there is no variant '{name}' that could be long");
    }
    let mut unmatched = extra.clone();
    for (_, _, options) in &mut variants {
        options.splice(0..0, common.iter().cloned());
    }
    if inject {
        for (_, _, options) in &mut variants {
            options.push("--inject".into());
        }
    }
    let mut runs = Vec::new();
    for kernel in &wanted {
        for (variant, only, options) in &variants {
            if only.is_some_and(|only| only != *kernel) {
                continue;
            }
            let control = options.iter().any(|o| o == "--in-tree");
            if control && *kernel == "debug" && wanted.contains(&"stock") {
                continue;
            }
            let on_kernel = format!("{variant}/{kernel}");
            let is_extra = |e: &&str| e == variant || *e == on_kernel;
            unmatched.retain(|e| !is_extra(e));
            let is_long = long_variants.contains(variant);
            let choice = if !selection.kernels.iter().any(|k| k == kernel) {
                Choice::OtherKernel
            } else if is_long && !selection.long {
                Choice::LeftTo("--long")
            } else if extra.iter().any(is_extra) && !selection.extra {
                Choice::LeftTo("--extra")
            } else {
                Choice::Run
            };
            coverage.variant(options, choice);
            if choice != Choice::Run {
                continue;
            }
            runs.push(GuestRun {
                name: format!("{test}/{on_kernel}"),
                script: script.to_path_buf(),
                variant: variant.to_string(),
                kernel: kernel.to_string(),
                options: options.clone(),
                timeout: match kernel {
                    _ if is_long => LONG_TIMEOUT,
                    &"debug" => 4 * timeout,
                    _ => timeout,
                },
            });
        }
    }
    if let Some(name) = unmatched.first() {
        bail!("there is no variant '{name}' that could be extra");
    }
    Ok((runs, coverage))
}

/// The runs of all scripts in `dirs` that are wanted, and what is not run on some IOMMU.
pub fn find(dirs: &[PathBuf], selection: &Selection) -> Result<Found> {
    let mut found = Found::default();
    let mut names = BTreeSet::new();
    for dir in dirs {
        let mut scripts: Vec<PathBuf> = Vec::new();
        for entry in std::fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "sh") {
                scripts.push(path);
            }
        }
        scripts.sort();
        for script in scripts {
            let read = || format!("{}", script.display());
            if !names.insert(script.file_stem().map(|s| s.to_os_string())) {
                bail!("{}: another test has this name", script.display());
            }
            let text = std::fs::read_to_string(&script).with_context(read)?;
            let (runs, coverage) = parse(&script, &text, selection).with_context(read)?;
            let test = script.file_stem().unwrap_or_default().to_string_lossy();
            found
                .skipped
                .extend(coverage.skipped(&test).with_context(read)?);
            found.runs.extend(runs);
        }
    }
    Ok(found)
}

/// What came of a run: the script's results, and a failed one more if the run
/// itself went wrong. The second part is text to quote.
pub struct Report {
    pub points: Vec<Point>,
    pub quote: Vec<String>,
}

impl GuestRun {
    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    /// Whether it has modules with injection points.
    pub fn inject(&self) -> bool {
        self.options.iter().any(|o| o == "--inject")
    }

    /// Runs the guest; everything that it prints goes to a log in `logs`.
    pub fn run(&self, logs: &Path) -> Result<Report> {
        let log = logs.join(self.name.replace('/', "-") + ".log");
        let write = || format!("cannot write {}", log.display());
        let mut log_file = File::create(&log).with_context(write)?;
        let vm = std::env::current_exe()?.with_file_name("vm");
        let mut child = Command::new("setpriv")
            // Should this program be killed, the guest goes too.
            .args(["--pdeathsig", "TERM"])
            .arg(vm)
            .args(["--kernel", &self.kernel])
            .args(["--timeout", &self.timeout.to_string()])
            .args(["--env", &format!("VARIANT={}", self.variant)])
            .args(["--env", &format!("KERNEL={}", self.kernel)])
            .arg("--script")
            .arg(&self.script)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run setpriv")?;
        let stdout = child.stdout.take().context("no output")?;
        let stderr = child.stderr.take().context("no output")?;
        let messages = std::thread::spawn(move || {
            let lines = BufReader::new(stderr).split(b'\n').map_while(Result::ok);
            lines
                .map(|l| String::from_utf8_lossy(&l).into_owned())
                .collect::<Vec<_>>()
        });
        let mut results = Results::default();
        let mut diagnostics = Vec::new();
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            writeln!(log_file, "{line}").with_context(write)?;
            results.line(&line);
            if line.starts_with('#') {
                diagnostics.push(line.into_owned());
            }
        }
        let status = child.wait()?;
        let messages = messages.join().unwrap_or_default();
        for line in &messages {
            writeln!(log_file, "{line}").with_context(write)?;
        }
        let code = status.code().unwrap_or(-1);
        Ok(self.judge(results, code, messages, diagnostics, &log))
    }

    fn judge(
        &self,
        results: Results,
        code: i32,
        messages: Vec<String>,
        diagnostics: Vec<String>,
        log: &Path,
    ) -> Report {
        let problem = match code {
            124 => Some("time limit".to_string()),
            125 => Some("vm could not run the guest".to_string()),
            126 => Some("the kernel reported a problem".to_string()),
            127 => Some("the guest died".to_string()),
            0 | 1 if results.problem().is_some() => results.problem(),
            0 if results.failed() => Some("a test failed and the status is 0".to_string()),
            0 => None,
            // How kselftest scripts say that a test failed, or that all were skipped.
            1 if results.failed() => None,
            4 if !results.failed() => results.problem(),
            other => Some(format!("the script's exit status was {other}")),
        };
        let mut quote = Vec::new();
        if results.failed() {
            quote.extend(diagnostics);
        }
        let mut points = results.points;
        if let Some(reason) = problem {
            points.push(Point {
                verdict: Verdict::Fail,
                name: reason,
                reason: String::new(),
            });
            quote.extend(messages);
        }
        if !quote.is_empty() {
            quote.push(format!("log: {}", log.display()));
        }
        Report { points, quote }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&str; 2] = ["stock", "debug"];

    fn selection(kernels: &[&str], long: bool, extra: bool) -> Selection {
        let kernels = kernels.iter().map(|n| n.to_string()).collect();
        Selection {
            kernels,
            long,
            extra,
        }
    }

    fn selected(text: &str, kernels: &[&str], long: bool, extra: bool) -> Result<Vec<GuestRun>> {
        let selection = selection(kernels, long, extra);
        parse(Path::new("/x/smoke.sh"), text, &selection).map(|(runs, _)| runs)
    }

    fn runs(text: &str, names: &[&str]) -> Result<Vec<GuestRun>> {
        selected(text, names, false, false)
    }

    fn judge(text: &str, code: i32) -> Vec<Verdict> {
        let run = &runs("# variant a:", &["stock"]).unwrap()[0];
        let mut results = Results::default();
        text.lines().for_each(|l| results.line(l));
        let report = run.judge(results, code, vec![], vec![], Path::new("/log"));
        report.points.iter().map(|p| p.verdict).collect()
    }

    #[test]
    fn headers() {
        let text = "#!/bin/sh\n# variant a: --iommu none\n# variant b: --in-tree --nvme 1\n\
                    # timeout: 30\nrest: here\n";
        let all = runs(text, &BOTH).unwrap();
        let names: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["smoke/a/stock", "smoke/b/stock", "smoke/a/debug",]);
        assert_eq!(all[1].options, ["--in-tree", "--nvme", "1"]);
        assert_eq!((all[0].timeout, all[2].timeout), (30, 120));
    }

    #[test]
    fn options_of_all_variants_come_first() {
        let text = "# variant a: --in-tree\n# options: --nvme 1\n# variant b:\n# options: --policy strict\n";
        let all = runs(text, &["stock"]).unwrap();
        let common = ["--nvme", "1", "--policy", "strict"];
        assert_eq!(all[0].options, [&common[..], &["--in-tree"]].concat());
        assert_eq!(all[1].options, common);
    }

    #[test]
    fn kernels_are_those_of_both_lists() {
        let text = "# variant a:\n# kernels: debug\n";
        assert_eq!(runs(text, &BOTH).unwrap().len(), 1);
        assert!(runs(text, &["stock"]).unwrap().is_empty());
        let text = "# variant a on debug:\n# variant b:\n";
        assert_eq!(runs(text, &["stock"]).unwrap().len(), 1);
        assert_eq!(runs(text, &["debug"]).unwrap().len(), 2);
    }

    #[test]
    fn modules_and_long_variants() {
        let text = "# long: b\n# variant a: --nvme 1\n# modules: inject\n# variant b:\n";
        let short = runs(text, &["stock"]).unwrap();
        assert_eq!(short.len(), 1);
        assert_eq!(short[0].options, ["--nvme", "1", "--inject"]);
        let all = selected(text, &["stock"], true, false).unwrap();
        assert_eq!(all[1].name, "smoke/b/stock");
        assert_eq!(all[1].options, ["--inject"]);
        assert_eq!((all[0].timeout, all[1].timeout), (120, LONG_TIMEOUT));
    }

    #[test]
    fn extra_variants() {
        let text =
            "# variant a:\n# variant b on stock:\n# variant c: --in-tree\n# extra: a/debug c\n";
        let names = |extra| {
            let runs = selected(text, &BOTH, false, extra).unwrap();
            runs.into_iter().map(|r| r.name).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["smoke/a/stock", "smoke/b/stock"]);
        assert_eq!(names(true)[2..], ["smoke/c/stock", "smoke/a/debug"]);
        // Nor is what runs nowhere.
        for name in ["d", "b/debug", "a/new", "c/debug"] {
            let text = format!("{text}# extra: {name}\n");
            assert!(runs(&text, &["stock"]).is_err(), "{name}");
        }
    }

    #[test]
    fn names_are_unique_over_the_folders() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = dirs.each_ref().map(|d| d.path().to_path_buf());
        let text = "# variant v:\n# skip amd virtio: why\n";
        let write = |dir: usize, name| std::fs::write(paths[dir].join(name), text);
        write(0, "a.sh").unwrap();
        write(1, "b.sh").unwrap();
        write(1, "a.aml").unwrap();
        let find = || super::find(&paths, &selection(&["stock"], false, false));
        let found = find().unwrap();
        let names: Vec<&str> = found.runs.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(names, ["a/v/stock", "b/v/stock"]);
        let names: Vec<&str> = found.skipped.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a/amd", "a/virtio", "b/amd", "b/virtio"]);
        write(1, "a.sh").unwrap();
        assert!(find().is_err());
    }

    /// Of all variants: one that is left to an option counts.
    #[test]
    fn the_scripts_say_what_is_skipped() {
        let folders = FOLDERS.iter().chain(PACKAGE);
        let folders: Vec<PathBuf> = folders.map(|f| crate::kernel::tree().join(f)).collect();
        let skipped = |extra| {
            let selection = selection(&BOTH, true, extra);
            find(&folders, &selection).unwrap().skipped
        };
        let left = |s: &&Skipped| s.reason == "left to --extra";
        assert!(skipped(false).iter().any(|s| left(&s)));
        assert!(!skipped(true).iter().any(|s| left(&s)));
    }

    #[test]
    fn wrong_headers_are_refused() {
        for text in [
            "",
            "# kernels: stock\n",
            "# variant a:\n# variant a:\n",
            "# variant a:\n# kernels: stok\n",
            "# variant a:\n# timeout: soon\n",
            "# variant a on stok:\n",
            "# variant a:\n# variant a on debug:\n",
            "# variant a:\n# modules: other\n",
            "# variant a:\n# long: b\n",
            "# variant a:\n# skip amdvi: why\n",
        ] {
            assert!(runs(text, &BOTH).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_run_that_went_wrong_is_a_failure() {
        use Verdict::{Fail, Pass, Skip};
        let good = "1..1\nok 1 a\n";
        let bad = "1..1\nnot ok 1 a\n";
        assert_eq!(judge(good, 0), [Pass]);
        assert_eq!(judge(bad, 1), [Fail]);
        assert_eq!(judge("1..0 # SKIP x\n", 4), [Skip]);
        for code in [-1, 1, 2, 123, 124, 125, 126, 127, 130] {
            assert_eq!(judge(good, code), [Pass, Fail], "{code}");
        }
        assert_eq!(judge(bad, 0), [Fail, Fail]);
        assert_eq!(judge("1..2\nok 1 a\n", 0), [Pass, Fail]);
        assert_eq!(judge("", 0), [Fail]);
        assert_eq!(judge("", 4), [Fail]);
    }
}
