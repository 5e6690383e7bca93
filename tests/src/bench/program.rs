//! The bench of a Python program that goes on from a snapshot: from its restore to the first byte of its answer over vsock.

use super::measure::program::{MOMENTS, RUNTIME, Step};
use super::measure::{Measured, Plan, Sample, Task};
use super::report::{Value, median, unbounded, value};
use super::setup::{GUEST_MIB, Outcome, Setup, contestant};

/// Virtual milliseconds to the first byte, in a process in reserve.
const LIMIT: f64 = 15.0;
/// Python's start takes so many times as long as a bare guest's.
const STALL_FACTOR: u32 = 5;

/// Runs the bench, some minutes. The reference does nothing like it.
///
/// # Errors
/// When the machine cannot be made, or the program does not start or answer.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    if setup.vmm.is_none() {
        return Ok(Outcome {
            values: Vec::new(),
            hung: 0,
        });
    }
    let machine = setup
        .machine()?
        .stall(setup.stall * STALL_FACTOR)
        .file(&setup.first_stage, "/first-stage")
        .file(&setup.runtime, RUNTIME);
    let plan = Plan {
        contestants: vec![contestant("crn-vmm", &["/bin/crn-vmm"], &[], &[])],
        runs: setup.runs,
        finished: 0,
        marker: String::new(),
        guest_mib: GUEST_MIB,
        task: Task::Program,
    };
    let (samples, hung) = setup.measure(machine, &plan)?;
    Ok(Outcome {
        values: evaluate(&samples),
        hung,
    })
}

fn evaluate(samples: &[Sample]) -> Vec<Value> {
    let of = |wanted: &str| {
        let values = samples.iter().filter_map(|sample| match &sample.measured {
            Measured::Named { name, value } if name == wanted => Some(*value as f64 / 1e6),
            _ => None,
        });
        median(values.collect())
    };
    let [_, last] = MOMENTS;
    let mut values = Vec::new();
    for step in [Step::Reserve, Step::New] {
        for moment in MOMENTS {
            let name = step.name(moment);
            let Some(measured) = of(&name) else { continue };
            let name = format!("restore of a Python program to its {name}");
            values.push(if step == Step::Reserve && moment == last {
                value(&name, "virtual ms", measured, LIMIT)
            } else {
                unbounded(&name, "virtual ms", measured)
            });
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_byte_from_a_process_in_reserve_has_a_goal() {
        let sample = |step: Step, moment: &str, value| Sample {
            contestant: "crn-vmm".to_owned(),
            measured: Measured::Named {
                name: step.name(moment),
                value,
            },
        };
        let samples = [
            sample(Step::Reserve, MOMENTS[1], 16_000_000),
            sample(Step::New, MOMENTS[1], 21_000_000),
            sample(Step::Reserve, MOMENTS[0], 5_000_000),
        ];
        let values = evaluate(&samples);
        let found: Vec<_> = values.iter().map(|value| value.value).collect();
        assert_eq!(found, [Some(5.0), Some(16.0), Some(21.0)]);
        let met: Vec<_> = values.iter().map(Value::meets_goal).collect();
        assert_eq!(met, [true, false, true]);
    }
}
