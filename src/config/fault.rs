//! Faults of a configuration, each with its place.

/// One fault.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The message.
    pub message: String,
}

/// All faults of a configuration.
#[derive(Clone, Debug)]
pub struct Faults(pub Vec<Fault>);
