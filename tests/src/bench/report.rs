//! What a bench says: values beside a reference and a goal.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::measure::{Measured, Sample};
use super::setup::{OURS, REFERENCE};

/// One measured quantity; smaller is better for all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What was measured.
    pub name: String,
    /// `virtual ms`, `KiB`, `exits` and the like.
    pub unit: String,
    /// Ours; `None` when only the reference ran.
    pub value: Option<f64>,
    /// The reference's, from the same machine and run; `None` where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<f64>,
    /// Who the reference is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reference_name: String,
    /// The largest share of the reference we allow ourselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// The largest value we allow ourselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
}

impl Value {
    /// Ours over the reference's.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.value? / self.reference?)
    }

    /// Whether goal and limit, where there are any and we ran, are met.
    pub fn meets_goal(&self) -> bool {
        let holds = |value: Option<f64>, bound: Option<f64>| match (value, bound) {
            (Some(value), Some(bound)) => value <= bound,
            _ => true,
        };
        holds(self.ratio(), self.goal) && holds(self.value, self.limit)
    }
}

/// A value whose goal is a number of its own, not a share of somebody else's.
pub(super) fn value(name: &str, unit: &str, value: f64, goal: f64) -> Value {
    Value {
        limit: Some(goal),
        ..unbounded(name, unit, value)
    }
}

/// A value without a goal.
pub(super) fn unbounded(name: &str, unit: &str, value: f64) -> Value {
    Value {
        name: name.into(),
        unit: unit.into(),
        value: Some(value),
        reference: None,
        reference_name: String::new(),
        goal: None,
        limit: None,
    }
}

/// The middle value, or the mean of the two in the middle; `None` of nothing.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 {
        upper
    } else {
        (values[middle - 1] + upper) / 2.0
    })
}

/// What guests measured of each kind of operation, by the operation, ours beside the reference's.
pub(super) fn operations(
    suite: &str,
    kinds: &[&str],
    samples: &[Sample],
    reference_name: &str,
    goal: f64,
) -> Vec<Value> {
    let of = |contestant: &str, kind: &str| {
        let picked = samples.iter().filter_map(|sample| match &sample.measured {
            Measured::Operations { name, count, ns }
                if sample.contestant == contestant && name == kind =>
            {
                Some(*ns as f64 / 1e3 / *count as f64)
            }
            _ => None,
        });
        median(picked.collect())
    };
    kinds
        .iter()
        .filter_map(|kind| {
            Some(Value {
                name: format!("{suite}: {kind}"),
                unit: "virtual µs per operation".to_owned(),
                value: of(OURS, kind),
                reference: Some(of(REFERENCE, kind)?),
                reference_name: reference_name.to_owned(),
                goal: Some(goal),
                limit: None,
            })
        })
        .collect()
}

/// The values as a table for people.
pub fn table(values: &[Value]) -> String {
    let mut text = format!(
        "{:<42} {:>10} {:>10} {:>7} {:>7}  {}\n",
        "", "ours", "reference", "ratio", "goal", "unit"
    );
    for value in values {
        let number =
            |number: Option<f64>| number.map_or("-".to_owned(), |number| format!("{number:.1}"));
        let share = |share: Option<f64>| share.map_or(String::new(), |share| format!("{share:.2}"));
        let verdict = if value.meets_goal() { "" } else { "  MISSED" };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "{:<42} {:>10} {:>10} {:>7} {:>7}  {}{verdict}",
            value.name,
            number(value.value),
            number(value.reference),
            share(value.ratio()),
            match (value.goal, value.limit) {
                (Some(goal), _) => format!("≤{goal:.2}"),
                (None, Some(limit)) => format!("≤{limit:.0}"),
                (None, None) => String::new(),
            },
            value.unit,
        );
    }
    text
}

/// Writes the values as a JSON list, replacing what stood there.
pub fn save(values: &[Value], path: &Path) -> anyhow::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let temporary = path.with_extension("json.new");
    fs::write(&temporary, serde_json::to_vec_pretty(values)?)
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_nothing() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    #[test]
    fn operations_are_compared_one_by_one() {
        let sample = |contestant: &str, ns: u64| Sample {
            contestant: contestant.to_owned(),
            measured: Measured::Operations {
                name: "read-1m".to_owned(),
                count: 10,
                ns,
            },
        };
        let samples = [sample(REFERENCE, 2_000_000), sample(OURS, 1_000_000)];
        let values = operations("disk", &["read-1m", "write-1m"], &samples, "other", 0.77);
        assert_eq!(values.len(), 1);
        assert_eq!(
            (values[0].value, values[0].reference),
            (Some(100.0), Some(200.0))
        );
        assert!(values[0].meets_goal());
    }

    #[test]
    fn a_missed_goal_is_said() {
        let mut value = Value {
            name: "boot".into(),
            unit: "virtual ms".into(),
            value: Some(29.0),
            reference: Some(100.0),
            reference_name: "other".into(),
            goal: Some(0.3),
            limit: None,
        };
        assert!(!table(std::slice::from_ref(&value)).contains("MISSED"));
        value.value = Some(31.0);
        assert!(table(std::slice::from_ref(&value)).contains("MISSED"));
        (value.reference, value.goal, value.limit) = (None, None, Some(31.0));
        assert!(!table(std::slice::from_ref(&value)).contains("MISSED"));
        value.limit = Some(30.0);
        assert!(table(&[value]).contains("MISSED"));
    }
}
