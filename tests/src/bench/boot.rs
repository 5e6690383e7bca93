//! The boot bench: `crn-vmm` and QEMU's `microvm` start the same kernel and initramfs, alternating.

use anyhow::bail;

use super::measure::{Measured, Sample, Task};
use super::report::{Value, median};
use super::setup::{CMDLINE, OURS, Outcome, REFERENCE, Setup};

/// The largest share of the reference's time we allow ourselves.
const GOAL: f64 = 0.22;
/// Our own share of a start, virtual milliseconds at most.
const LAUNCH_LIMIT: f64 = 6.0;

/// Runs the bench, about a minute.
///
/// # Errors
/// When the machine cannot be made or a contestant fails.
pub fn run(setup: &Setup) -> anyhow::Result<Outcome> {
    let plan = setup.plan(Task::Boot, CMDLINE, &[], &[]);
    let (samples, hung) = setup.measure(setup.machine()?, &plan)?;
    Ok(Outcome {
        values: evaluate(&samples)?,
        hung,
    })
}

type Pick = fn(&Measured) -> Option<f64>;

fn evaluate(samples: &[Sample]) -> anyhow::Result<Vec<Value>> {
    let quantities: [(&str, &str, [Option<f64>; 2], Pick); 6] = [
        (
            "spawn to first guest instruction",
            "virtual ms",
            [None, Some(LAUNCH_LIMIT)],
            |measured| match measured {
                Measured::Entered { ns } => Some(milliseconds(*ns)),
                _ => None,
            },
        ),
        (
            "spawn to first user instruction",
            "virtual ms",
            [Some(GOAL), None],
            |measured| match measured {
                Measured::Times { marker_ns, .. } => Some(milliseconds(*marker_ns)),
                _ => None,
            },
        ),
        (
            "spawn to exit",
            "virtual ms",
            [Some(GOAL), None],
            |measured| match measured {
                Measured::Times { exit_ns, .. } => Some(milliseconds(*exit_ns)),
                _ => None,
            },
        ),
        (
            "memory beyond the guest's",
            "KiB",
            [None; 2],
            |measured| match measured {
                Measured::Footprint { resident_kib, .. } => Some(*resident_kib as f64),
                _ => None,
            },
        ),
        (
            "memory beyond the guest's, private",
            "KiB",
            [None; 2],
            |measured| match measured {
                Measured::Footprint { private_kib, .. } => Some(*private_kib as f64),
                _ => None,
            },
        ),
        (
            "exits to first user instruction",
            "exits",
            [None; 2],
            |measured| match measured {
                Measured::Footprint { exits, .. } => exits.map(|exits| exits as f64),
                _ => None,
            },
        ),
    ];
    let mut values = Vec::new();
    for (name, unit, [goal, limit], pick) in quantities {
        let of = |contestant: &str| {
            let picked = samples
                .iter()
                .filter(|sample| sample.contestant == contestant);
            median(picked.filter_map(|sample| pick(&sample.measured)).collect())
        };
        let Some(reference) = of(REFERENCE) else {
            continue;
        };
        values.push(Value {
            name: format!("boot: {name}"),
            unit: unit.to_owned(),
            value: of(OURS),
            reference: Some(reference),
            reference_name: REFERENCE.to_owned(),
            goal,
            limit,
        });
    }
    if values.is_empty() {
        bail!("nothing was measured");
    }
    Ok(values)
}

fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_stand_beside_the_reference() {
        let times = |contestant: &str, milliseconds: u64| Sample {
            contestant: contestant.into(),
            measured: Measured::Times {
                marker_ns: milliseconds * 500_000,
                exit_ns: milliseconds * 1_000_000,
            },
        };
        let samples = [
            times(REFERENCE, 900),
            times(OURS, 190),
            times(OURS, 180),
            times(OURS, 900),
        ];

        let values = evaluate(&samples).unwrap();

        assert_eq!(values.len(), 2);
        assert_eq!(
            (values[1].value, values[1].reference),
            (Some(190.0), Some(900.0))
        );
        assert!(values[1].meets_goal());
    }
}
