//! PID 1 of a guest, and the step that becomes its program ([`crn_init::launch`]).

#![forbid(unsafe_code)]

use std::env;

use crn_init::{boot, launch, system};

fn main() {
    if std::process::id() == 1 {
        boot::run();
    }
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == launch::START) {
        system::say(&format!(
            "start program: {}",
            launch::become_program(arguments)
        ));
        std::process::exit(127);
    }
    system::say("runs as PID 1 in a guest");
    std::process::exit(2);
}
