//! The exit codes, as documented in `--help` and the README.

use sartor::Kind;

/// Done.
pub(crate) const DONE: u8 = 0;
/// A limit could not be met (the best artefact and the reason are written), or outputs are not those expected.
pub(crate) const MISSED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Input cannot be read or is not valid.
pub(crate) const INPUT: u8 = 3;
/// Not supported.
pub(crate) const UNSUPPORTED: u8 = 4;
/// Output cannot be written.
pub(crate) const OUTPUT: u8 = 5;
/// A fault of ours.
pub(crate) const BUG: u8 = 70;
/// Interrupted.
pub(crate) const INTERRUPTED: u8 = 130;

/// The code of an error.
pub(crate) fn of(kind: Kind) -> u8 {
    match kind {
        Kind::Usage => USAGE,
        Kind::Input => INPUT,
        Kind::Unsupported => UNSUPPORTED,
        Kind::Output => OUTPUT,
        Kind::Interrupted => INTERRUPTED,
        Kind::Bug => BUG,
    }
}
