//! From the command line to what it asks for.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Command, SimulateCommand};
use crate::commands::{
    bids, broker, clusters, counterfactual, files, leases, prices, replay, simulate, webhooks,
};

/// A command that was refused, or input that is wrong.
const REFUSED: u8 = 2;

/// Runs a command to its end. What is wrong is one line on standard error.
pub fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::Up(arguments) => return crate::up::up(&arguments),
        Command::Market(arguments) => return crate::up::market(&arguments),
        Command::Placement(arguments) => return crate::up::placement(&arguments),
        Command::Controlplane(arguments) => return crate::up::controlplane(&arguments),
        Command::Gateway(arguments) => return crate::up::gateway(&arguments),
        Command::NatsServer { arguments } => Err(runtime::nats::guard::exec(arguments).into()),
        Command::NatsAccounts(arguments) => broker::accounts(&arguments),
        Command::NatsKey(arguments) => broker::key(&arguments),
        Command::Bid(arguments) => bids::place(&arguments),
        Command::Order(arguments) => bids::order(&arguments),
        Command::Amend(arguments) => bids::amend(&arguments),
        Command::Cancel(arguments) => bids::cancel(&arguments),
        Command::Acknowledge(arguments) => bids::acknowledge(&arguments),
        Command::Bids(arguments) => bids::list(&arguments),
        Command::Why(arguments) => bids::why(&arguments),
        Command::Leases(arguments) => leases::leases(&arguments),
        Command::Bill(arguments) => leases::bill(&arguments),
        Command::Cluster(command) => clusters::run(&command),
        Command::Webhook(command) => webhooks::run(&command),
        Command::Notices(arguments) => bids::notices(&arguments),
        Command::Prices(arguments) => prices::prices(&arguments),
        Command::Quote(arguments) => prices::quote(&arguments),
        Command::Watch(arguments) => prices::watch(&arguments),
        Command::Clear(arguments) => files::clear(&arguments),
        Command::Pack(arguments) => files::pack(&arguments),
        Command::Schema(arguments) => files::schema(&arguments),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Simulate(SimulateCommand::Swarm(arguments)) => simulate::swarm(&arguments),
        Command::Simulate(SimulateCommand::Counterfactual(arguments)) => counterfactual::run(&arguments),
    };
    finish(outcome)
}

/// The exit code of an outcome; an error is printed as one line, causes behind it.
pub fn finish(outcome: Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has gone, as `head` does: that is no error of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("{error:#}").replace('\n', " ");
            // With standard error gone too there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "walras: {line}");
            ExitCode::from(REFUSED)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}
