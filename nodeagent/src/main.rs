//! `walras-nodeagent`.

use std::process::ExitCode;

fn main() -> ExitCode {
    match nodeagent::command::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // What is wrong with the arguments was said by their parser, in its own form.
            if let Some(usage) = error.downcast_ref::<clap::Error>() {
                let _printed = usage.print();
                return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
            }
            eprintln!("walras-nodeagent: {error:#}");
            // Starting again would change nothing: the unit says so to systemd.
            let refused = error.downcast_ref::<nodeagent::RefusedError>().is_some();
            if refused { ExitCode::from(3) } else { ExitCode::FAILURE }
        }
    }
}
