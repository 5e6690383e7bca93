//! Runs inside the nested machine and measures boots there; see `crn_tests::bench::measure`.

#![forbid(unsafe_code)]

fn main() -> anyhow::Result<()> {
    crn_tests::bench::measure::run()
}
