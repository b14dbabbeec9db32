//! `flowtap inject` and `flowtap injector`.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use flowtap::{app, inject, injector, trace};

use super::{CONFIG, START_FAILED, fail, print};

/// Input that cannot be worked on, as in sysexits.h.
const DATA: u8 = 65;
/// The image of this version, with all in it.
pub(super) const IMAGE: &str = concat!("flowtap:", env!("CARGO_PKG_VERSION"));

/// What every sidecar gets.
#[derive(clap::Args)]
struct Sidecar {
    /// The sidecar's image
    #[arg(long, value_name = "IMAGE", default_value = IMAGE)]
    image: String,
    /// A key for every workload whose annotations do not set it, as in --set bucket=s3://name/prefix
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

/// What `flowtap inject` is told.
#[derive(clap::Args)]
pub(super) struct Inject {
    /// Take it out again
    #[arg(long, conflicts_with_all = ["image", "set"])]
    uninject: bool,
    #[command(flatten)]
    sidecar: Sidecar,
}

/// What `flowtap injector` is told.
#[derive(clap::Args)]
pub(super) struct Injector {
    /// Where the API server connects
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    listen: SocketAddr,
    /// The certificate's chain (PEM)
    #[arg(long, value_name = "FILE")]
    cert_file: PathBuf,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE")]
    key_file: PathBuf,
    #[command(flatten)]
    sidecar: Sidecar,
}

impl Sidecar {
    fn settings(self) -> inject::Settings {
        inject::Settings { image: self.image, set: self.set }
    }
}

/// Edits stdin to stdout, or writes nothing and tells why.
pub(super) fn inject(arguments: Inject) -> ExitCode {
    let mut text = String::new();
    // One byte more than is taken, so that what is too long is told and not cut.
    let limit = inject::TEXT_BYTES_MAX as u64 + 1;
    if let Err(error) = std::io::stdin().take(limit).read_to_string(&mut text) {
        return fail(DATA, &format!("stdin: {error}"));
    }
    let edited = match arguments.uninject {
        true => inject::uninject(&text).map(|text| (text, Vec::new())),
        false => inject::inject(&text, &arguments.sidecar.settings())
            .map(|injected| (injected.text, injected.notes)),
    };
    match edited {
        Ok((text, notes)) => {
            notes.iter().for_each(|note| drop(writeln!(std::io::stderr(), "{note}")));
            print(&text)
        }
        Err(refusals) => {
            for refusal in &refusals {
                fail(DATA, refusal);
            }
            ExitCode::from(DATA)
        }
    }
}

/// Serves the webhook until it is told to end.
pub(super) fn injector(arguments: Injector) -> ExitCode {
    let _logs = match trace::logs::init("info") {
        Ok(logs) => logs,
        Err(error) => return fail(CONFIG, &error),
    };
    trace::logs::report_panics();
    let Injector { listen, cert_file, key_file, sidecar } = arguments;
    let inject = sidecar.settings();
    if let Err(refusal) = inject::check(&inject) {
        return fail(CONFIG, &refusal);
    }
    match app::serve_injector(injector::Settings { listen, cert_file, key_file, inject }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(START_FAILED, &error),
    }
}

/// `KEY=VALUE`.
fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "allowed: KEY=VALUE".to_owned())
}
