//! What a bench says: values beside a reference and a goal.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One measured quantity; smaller is better for all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Value {
    /// What was measured.
    pub name: String,
    /// `virtual ms`, `KiB` or `exits`.
    pub unit: String,
    /// Ours; `None` when only the reference ran.
    pub value: Option<f64>,
    /// The reference's, from the same machine and run.
    pub reference: f64,
    /// Who the reference is.
    pub reference_name: String,
    /// The largest share of the reference we allow ourselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
}

impl Value {
    /// Ours over the reference's.
    pub fn ratio(&self) -> Option<f64> {
        self.value.map(|value| value / self.reference)
    }

    /// Whether the goal, if there is one and we ran, is met.
    pub fn meets_goal(&self) -> bool {
        match (self.ratio(), self.goal) {
            (Some(ratio), Some(goal)) => ratio <= goal,
            _ => true,
        }
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

/// The values as a table for people.
pub fn table(values: &[Value]) -> String {
    let mut text = format!(
        "{:<34} {:>10} {:>10} {:>7} {:>7}  {}\n",
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
            "{:<34} {:>10} {:>10} {:>7} {:>7}  {}{verdict}",
            value.name,
            number(value.value),
            number(Some(value.reference)),
            share(value.ratio()),
            value
                .goal
                .map_or(String::new(), |goal| format!("≤{goal:.2}")),
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
    fn a_missed_goal_is_said() {
        let mut value = Value {
            name: "boot".into(),
            unit: "virtual ms".into(),
            value: Some(29.0),
            reference: 100.0,
            reference_name: "other".into(),
            goal: Some(0.3),
        };
        assert!(!table(std::slice::from_ref(&value)).contains("MISSED"));
        value.value = Some(31.0);
        assert!(table(&[value]).contains("MISSED"));
    }
}
