// SPDX-License-Identifier: GPL-2.0

//! Which IOMMUs a guest test is run on, and why it is not on the others: each script has a variant for
//! each IOMMU, or a line that says why it has none.

use anyhow::{Result, bail};

/// What scripts call the IOMMUs that there are drivers for, and what `vm --iommu` does.
const IOMMUS: &[(&str, &str)] = &[("vtd", "intel"), ("amd", "amd"), ("virtio", "virtio")];

/// What becomes of a variant on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    Run,
    /// Left to this option of `check`.
    LeftTo(&'static str),
    /// That kernel is not wanted.
    OtherKernel,
}

/// A test that is not run on an IOMMU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// TEST/IOMMU
    pub name: String,
    pub reason: String,
}

/// What a script says of IOMMUs.
#[derive(Debug, Default)]
pub struct Coverage {
    variants: Vec<(&'static str, Choice)>,
    skips: Vec<(&'static str, String)>,
}

impl Coverage {
    /// A line `# skip NAME...: REASON`. Errors: unknown or repeated names, or no reason.
    pub fn skip(&mut self, names: &str, reason: &str) -> Result<()> {
        if reason.trim().is_empty() {
            bail!("'skip {names}' has no reason");
        }
        for name in names.split_whitespace() {
            let Some((known, _)) = IOMMUS.iter().find(|(known, _)| *known == name) else {
                bail!("there is no IOMMU '{name}' that could be skipped");
            };
            if self.skips.iter().any(|(other, _)| other == known) {
                bail!("{name} is skipped twice");
            }
            self.skips.push((known, reason.trim().to_string()));
        }
        Ok(())
    }

    /// A variant with these options of `vm`. A control says nothing of our drivers.
    pub fn variant(&mut self, options: &[String], choice: Choice) {
        let value = options.iter().skip_while(|o| *o != "--iommu").nth(1);
        let iommu = value.map_or("intel", |value| value.as_str());
        let known = IOMMUS.iter().find(|(_, option)| *option == iommu);
        if let Some((name, _)) = known.filter(|_| !options.iter().any(|o| o == "--in-tree")) {
            self.variants.push((name, choice));
        }
    }

    /// What is to be said of the IOMMUs that `test` is not run on. Errors: the script does not say.
    pub fn skipped(&self, test: &str) -> Result<Vec<Skipped>> {
        let mut skipped = Vec::new();
        for (iommu, _) in IOMMUS {
            let variants = self.variants.iter().filter(|(name, _)| name == iommu);
            let choices: Vec<Choice> = variants.map(|(_, choice)| *choice).collect();
            let skip = self.skips.iter().find(|(name, _)| name == iommu);
            let reason = match (skip, choices.is_empty()) {
                (None, true) => {
                    bail!("neither a variant for {iommu} nor a line '# skip {iommu}: REASON'")
                }
                (Some(_), false) => bail!("{iommu} is skipped, and has a variant"),
                (Some((_, reason)), true) => Some(reason.clone()),
                (None, false) if choices.contains(&Choice::Run) => None,
                (None, false) => choices.iter().find_map(|choice| match choice {
                    Choice::LeftTo(option) => Some(format!("left to {option}")),
                    _ => None,
                }),
            };
            let name = format!("{test}/{iommu}");
            skipped.extend(reason.map(|reason| Skipped { name, reason }));
        }
        Ok(skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Vec<String> {
        text.split_whitespace().map(String::from).collect()
    }

    /// The names and reasons that come of variants, with what becomes of them, and of skip lines.
    fn said(variants: &[(&str, Choice)], skips: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut coverage = Coverage::default();
        for (names, reason) in skips {
            coverage.skip(names, reason)?;
        }
        for (text, choice) in variants {
            coverage.variant(&options(text), *choice);
        }
        let skipped = coverage.skipped("t")?;
        Ok(skipped
            .into_iter()
            .map(|s| format!("{}: {}", s.name, s.reason))
            .collect())
    }

    #[test]
    fn each_iommu_has_a_variant_or_a_reason() {
        use Choice::{LeftTo, OtherKernel, Run};
        let all = [("", Run), ("--iommu amd", Run), ("--iommu virtio", Run)];
        assert!(said(&all, &[]).unwrap().is_empty());
        assert!(said(&all, &[("amd", "why")]).is_err());
        assert!(said(&all[..2], &[]).is_err());
        let reasons = said(&all[..1], &[("amd virtio", " no table ")]).unwrap();
        assert_eq!(reasons, ["t/amd: no table", "t/virtio: no table"]);
        // What is run on one kernel is not left out.
        let left = [
            ("", LeftTo("--extra")),
            ("", Run),
            ("--iommu amd", OtherKernel),
            ("--iommu amd", LeftTo("--long")),
            ("--iommu virtio", OtherKernel),
        ];
        assert_eq!(said(&left, &[]).unwrap(), ["t/amd: left to --long"]);
    }

    #[test]
    fn controls_do_not_count() {
        use Choice::Run;
        let variants = [
            ("--in-tree", Run),
            ("--iommu amd --in-tree", Run),
            ("--iommu none", Run),
            ("--nvme 1 --iommu virtio", Run),
        ];
        assert!(said(&variants, &[("amd", "why")]).is_err());
        assert!(said(&variants, &[("vtd amd", "why")]).is_ok());
        assert!(said(&variants, &[("vtd amd virtio", "why")]).is_err());
    }

    #[test]
    fn wrong_skips_are_refused() {
        for skips in [
            &[("intel", "why")][..],
            &[("amd", " ")],
            &[("amd virtio", "why"), ("virtio", "why")],
        ] {
            let variants = [("", Choice::Run), ("--iommu virtio", Choice::Run)];
            assert!(said(&variants, skips).is_err(), "{skips:?}");
        }
    }
}
