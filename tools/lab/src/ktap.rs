// SPDX-License-Identifier: GPL-2.0

//! Reads the KTAP lines of a test among everything else that a guest prints.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    Skip,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub verdict: Verdict,
    pub name: String,
    /// Why it was skipped.
    pub reason: String,
}

impl Point {
    /// A test that is one result.
    pub fn of_all(verdict: Verdict, reason: &str) -> Point {
        Point {
            verdict,
            name: String::new(),
            reason: reason.to_string(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Results {
    pub points: Vec<Point>,
    plan: Option<usize>,
    /// What was wrong with the output itself.
    broken: Option<String>,
}

impl Results {
    /// Reads one line; lines that are not KTAP are passed over.
    pub fn line(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("1..") {
            self.read_plan(count);
        } else if let Some(reason) = line.strip_prefix("Bail out!") {
            self.break_off(format!("bailed out: {}", reason.trim()));
        } else if let Some(rest) = line.strip_prefix("ok ") {
            self.read_point(Verdict::Pass, rest);
        } else if let Some(rest) = line.strip_prefix("not ok ") {
            self.read_point(Verdict::Fail, rest);
        }
    }

    fn break_off(&mut self, reason: String) {
        self.broken.get_or_insert(reason);
    }

    fn read_plan(&mut self, text: &str) {
        let (count, directive) = text.split_once('#').unwrap_or((text, ""));
        let Ok(count) = count.trim().parse::<usize>() else {
            return;
        };
        if self.plan.is_some() {
            self.break_off("there are two plans".into());
        }
        self.plan = Some(count);
        if count == 0 {
            match directive.trim().strip_prefix("SKIP") {
                Some(reason) => self
                    .points
                    .push(Point::of_all(Verdict::Skip, reason.trim())),
                None => self.break_off("the plan has no tests".into()),
            }
        }
    }

    fn read_point(&mut self, verdict: Verdict, text: &str) {
        let (number, rest) = text.split_once(' ').unwrap_or((text, ""));
        let Ok(number) = number.parse::<usize>() else {
            return;
        };
        if number != self.points.len() + 1 {
            let next = self.points.len() + 1;
            self.break_off(format!("result {number} where {next} was due"));
        }
        let (name, directive) = rest.split_once('#').unwrap_or((rest, ""));
        let directive = directive.trim();
        let (verdict, reason) = match (verdict, directive.strip_prefix("SKIP")) {
            (Verdict::Pass, Some(reason)) => (Verdict::Skip, reason.trim()),
            // An expected failure shows no more than that the test ran.
            (Verdict::Pass, None) if directive.starts_with("XFAIL") => (Verdict::Skip, directive),
            (other, _) => (other, ""),
        };
        let name = name.trim().trim_start_matches("- ").to_string();
        let reason = reason.to_string();
        self.points.push(Point {
            verdict,
            name,
            reason,
        });
    }

    /// Why these results cannot be relied on, if so.
    pub fn problem(&self) -> Option<String> {
        if let Some(reason) = &self.broken {
            return Some(reason.clone());
        }
        match self.plan {
            None => Some("no plan was printed".into()),
            Some(0) => None,
            Some(n) if n != self.points.len() => Some(format!(
                "{} of {n} planned results were printed",
                self.points.len()
            )),
            Some(_) => None,
        }
    }

    pub fn failed(&self) -> bool {
        self.points.iter().any(|p| p.verdict == Verdict::Fail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Results {
        let mut results = Results::default();
        text.lines().for_each(|l| results.line(l));
        results
    }

    fn verdicts(text: &str) -> Vec<Verdict> {
        read(text).points.iter().map(|p| p.verdict).collect()
    }

    #[test]
    fn results_are_found_among_other_lines() {
        let text = "TAP version 13\n[    1.0] ok 1 not this\n1..3\nok 1 reads well\n# note\n\
                    not ok 2 - writes\nok 3 lonely # SKIP no device\nok then\n";
        let r = read(text);
        assert_eq!(r.points[0].name, "reads well");
        assert_eq!(r.points[1].name, "writes");
        assert_eq!(
            verdicts(text),
            [Verdict::Pass, Verdict::Fail, Verdict::Skip]
        );
        assert_eq!(r.problem(), None);
        assert!(r.failed());
    }

    #[test]
    fn incomplete_output_is_a_problem() {
        for text in [
            "",
            "ok 1 a\n",
            "1..2\nok 1 a\n",
            "1..1\nok 1 a\nok 2 b\n",
            "1..2\nok 1 a\nok 3 b\n",
            "1..2\nok 1 a\nok 1 a\n",
            "1..1\nok 1 a\nBail out! no disk\n",
            "1..1\n1..1\nok 1 a\n",
            "1..0\n",
        ] {
            assert!(read(text).problem().is_some(), "{text:?}");
        }
        assert_eq!(read("1..1\nok 1 a\n").problem(), None);
    }

    #[test]
    fn a_skipped_test_says_why() {
        let r = read("1..0 # SKIP no such device\n");
        assert_eq!(r.problem(), None);
        assert_eq!(r.points[0].verdict, Verdict::Skip);
        assert_eq!(r.points[0].reason, "no such device");
        let r = read("1..1\nok 1 lonely # SKIP no such device\n");
        assert_eq!(r.points[0].name, "lonely");
        assert_eq!(r.points[0].reason, "no such device");
    }
}
