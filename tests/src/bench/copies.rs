//! The bench of starts as the agent makes them, confined and over a control socket: from a kernel, from a snapshot, many
//! at once; and of what copies of one snapshot take.

use super::measure::copies::{AT_ONCE, COPIES, Step};
use super::measure::{Measured, Plan, Sample, Task};
use super::report::{Value, median, value};
use super::setup::{GUEST_MIB, MARKER, Outcome, Setup, contestant};

/// Virtual milliseconds at most: a new process and a kernel; a process in reserve and a snapshot; a new one and a snapshot.
const LIMITS: [(Step, &str, f64); 3] = [
    (
        Step::Launch,
        "spawn to first guest instruction, confined",
        8.0,
    ),
    (
        Step::RestoreReserve,
        "restore to first instruction, in reserve",
        4.0,
    ),
    (
        Step::Restore,
        "spawn and restore to first instruction",
        12.0,
    ),
];
/// MiB a copy.
const COPY_LIMIT: f64 = 6.0;
/// Of a fair share of the machine.
const FAIR: f64 = 2.0;

/// Runs the bench, some minutes. The reference does nothing like it.
///
/// # Errors
/// When the machine cannot be made or a start fails.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    if setup.vmm.is_none() {
        return Ok(Outcome {
            values: Vec::new(),
            hung: 0,
        });
    }
    let plan = Plan {
        contestants: vec![contestant("crn-vmm", &["/bin/crn-vmm"], &[], &[])],
        runs: setup.runs,
        finished: 0,
        marker: MARKER.to_owned(),
        guest_mib: GUEST_MIB,
        task: Task::Copies,
    };
    let (samples, hung) = setup.measure(setup.machine()?, &plan)?;
    Ok(Outcome {
        values: evaluate(&samples),
        hung,
    })
}

fn evaluate(samples: &[Sample]) -> Vec<Value> {
    let of = |step: Step| {
        let values = samples.iter().filter_map(|sample| match &sample.measured {
            Measured::Named { name, value } if name == step.name() => Some(*value as f64),
            _ => None,
        });
        median(values.collect())
    };
    let mut values = Vec::new();
    for (step, name, limit) in LIMITS {
        let measured = of(step);
        values.extend(measured.map(|ns| value(name, "virtual ms", ns / 1e6, limit)));
    }
    values.extend(of(Step::Memory).map(|kib| {
        let name = format!("memory of the 2nd to {COPIES}th copy, each");
        value(&name, "MiB", kib / 1024.0, COPY_LIMIT)
    }));
    if let (Some(alone), Some(at_once)) = (of(Step::Alone), of(Step::AtOnce)) {
        let name = format!("{AT_ONCE} at once, slowest over fair share");
        let share = at_once / (alone * f64::from(AT_ONCE));
        values.push(value(&name, "times", share, FAIR));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fair_share_of_many_is_as_long_as_all_of_them_one_after_the_other() {
        let sample = |step: Step, value| Sample {
            contestant: "crn-vmm".to_owned(),
            measured: Measured::Named {
                name: step.name().to_owned(),
                value,
            },
        };
        let samples = [
            sample(Step::Alone, 200),
            sample(Step::AtOnce, 6000),
            sample(Step::Memory, 7168),
            sample(Step::Launch, 7_000_000),
        ];
        let values = evaluate(&samples);
        let found: Vec<_> = values.iter().map(|value| value.value).collect();
        assert_eq!(found, [Some(7.0), Some(7.0), Some(1.5)]);
        let met: Vec<_> = values.iter().map(Value::meets_goal).collect();
        assert_eq!(met, [true, false, true]);
    }
}
