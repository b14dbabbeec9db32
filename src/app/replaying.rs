//! `flowtap replay`: its runtime and its bucket.

use tokio::runtime::Builder;

use super::StartError;
use crate::config::Config;
use crate::{bucket, config, replay};

/// Why `flowtap replay` gave no result.
#[derive(Debug, thiserror::Error)]
pub enum ReplayFailed {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It came to nothing.
    #[error(transparent)]
    Replay(#[from] replay::ReplayError),
}

/// Sends recorded requests to another deployment and compares the answers; `plain` is a tap with all
/// defaults before it.
pub fn replay(
    config: &Config,
    plain: config::Tap,
    settings: &replay::Settings,
    progress: &dyn Fn(replay::Progress),
) -> Result<replay::Report, ReplayFailed> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::from)?;
    runtime.block_on(async {
        let bucket = bucket::open(&config.bucket).await.map_err(StartError::from)?;
        Ok(replay::replay(config, plain, bucket, settings, progress).await?)
    })
}
