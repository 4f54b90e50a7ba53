//! Measurements that need no socket: what an operation of a volume costs on its home core, on another core, and on
//! both at once. Prints one table; what it taught is in `bench/README.md`. No load generator for protocols.
#![forbid(unsafe_code)]

mod load;
mod mapper;
mod world;

use atoll_reactor::runtime::available_cpus;
use atoll_reactor::sim::Sim;
use atoll_reactor::{Runtime, RuntimeConfig, block_on, cores};
use clap::{Parser, Subcommand};
use comfy_table::{CellAlignment, Table, presets};
use load::{Case, Operation, Place, Until};
use std::process::ExitCode;
use std::time::Duration;
use world::{PoolUnder, World};

/// As in the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DEPTHS: [usize; 2] = [1, 32];

/// Measures operations of a volume in this process, on the first two CPUs that it may use.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rounds that count; one more is run before them.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each measurement of a round takes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    millis: u64,
    /// Instead of measuring times, one round of so many operations on each core, on simulated cores: for tools that
    /// count instructions, such as callgrind, which knows no io_uring.
    #[arg(long, value_name = "OPERATIONS", conflicts_with_all = ["millis", "rounds"])]
    simulated: Option<u64>,
    /// Only lines whose first four columns, with a space between, contain this.
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(Subcommand)]
enum Command {
    Mapper(mapper::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Mapper(arguments)) = &arguments.command {
        return mapper::run(arguments);
    }
    let groups = groups(&arguments.only);
    if let Some(operations) = arguments.simulated {
        Sim::new(1, 2).block_on(async move {
            let world = World::start(cores()).await;
            for case in groups.into_iter().flatten() {
                load::run(&world, case, Until::Operations(operations)).await;
            }
        });
        return ExitCode::SUCCESS;
    }
    let cpus = available_cpus();
    let [first, second, ..] = cpus[..] else {
        eprintln!("two CPUs are needed, and this process may use {cpus:?}");
        return ExitCode::FAILURE;
    };
    let config = RuntimeConfig {
        cpus: vec![first, second],
        ..RuntimeConfig::default()
    };
    let runtime = Runtime::start(config).expect("this kernel has io_uring");
    println!(
        "CPUs {first} and {second}, poll adaptive; volumes of {} MiB, written once and flushed",
        world::VOLUME_BYTES >> 20
    );
    let until = Until::Time(Duration::from_millis(arguments.millis));
    let table = block_on(async {
        let world = World::start(runtime.cores().to_vec()).await;
        table(&world, &groups, arguments.rounds, until).await
    });
    println!("{table}");
    println!(
        "to home: operations per second of the line to those on the home core, median of the ratios of each round, \
         and the lowest and highest.\n\
         turn: a task that only lets others run, as each one here does after each operation; part of all other lines.\n\
         memory: half of the pool's objects lie on either core, so that half of what either does is a message."
    );
    ExitCode::SUCCESS
}

async fn table(world: &World, groups: &[Vec<Case>], rounds: u32, until: Until) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "pool",
        "depth",
        "operation",
        "on",
        "ns/op of a core",
        "op/s",
        "to home",
        "from",
        "to",
    ]);
    for group in groups {
        table.add_rows(measure(world, group, rounds, until).await);
    }
    for column in table.column_iter_mut().skip(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Cases that are compared: each begins with the one on the home core.
fn groups(only: &str) -> Vec<Vec<Case>> {
    let mut groups = Vec::new();
    for (pool, operations) in [
        (PoolUnder::Null, &Operation::ALL[..]),
        (PoolUnder::Memory, &Operation::ON_POOLS[..]),
    ] {
        for (depth, operation) in DEPTHS
            .iter()
            .flat_map(|depth| operations.iter().map(move |operation| (*depth, *operation)))
        {
            let group = operation.places().iter().map(|place| Case {
                pool,
                depth,
                operation,
                place: *place,
            });
            let wanted =
                |case: &Case| format!("{pool} {depth} {operation} {}", case.place).contains(only);
            groups.push(group.filter(wanted).collect::<Vec<_>>());
        }
    }
    groups.retain(|group| !group.is_empty());
    groups
}

/// Runs the cases in alternating rounds; a line of the table for each.
async fn measure(world: &World, group: &[Case], rounds: u32, until: Until) -> Vec<Vec<String>> {
    let mut rates = vec![Vec::new(); group.len()];
    for round in 0..=rounds {
        for (case, rates) in group.iter().zip(&mut rates) {
            let rate = load::run(world, *case, until).await;
            // The first one warms up.
            if round > 0 {
                rates.push(rate);
            }
        }
    }
    let home = rates[0].clone();
    let lines = group.iter().zip(rates).map(|(case, rates)| {
        let rate = median(rates.clone());
        let mut line = vec![
            case.pool.to_string(),
            case.depth.to_string(),
            case.operation.to_string(),
            case.place.to_string(),
            format!("{:.0}", case.place.cores() as f64 * 1e9 / rate),
            format!("{rate:.0}"),
        ];
        if group[0].place == Place::Home && case.place != Place::Home {
            let mut ratios: Vec<f64> = rates.iter().zip(&home).map(|(a, b)| a / b).collect();
            ratios.sort_by(f64::total_cmp);
            let of_interest = [median(ratios.clone()), ratios[0], ratios[ratios.len() - 1]];
            line.extend(of_interest.map(|ratio| format!("{ratio:.2}")));
        }
        line
    });
    lines.collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}
