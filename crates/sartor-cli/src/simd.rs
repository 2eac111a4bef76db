//! `SARTOR_SIMD`: the richest set of instructions that kernels may use.

use sartor::{Error, Level};

/// Names of the sets, as the variable has them.
const NAMES: [(&str, Level); 3] =
    [("avx512", Level::Avx512), ("avx2", Level::Avx2), ("portable", Level::Portable)];

/// Obeys the variable, if it is set.
pub(crate) fn limit() -> Result<(), Error> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the command line is where the environment is read"
    )]
    let wanted = std::env::var("SARTOR_SIMD");
    match wanted {
        Ok(it) if !it.is_empty() => limit_to(&it),
        Ok(_) | Err(std::env::VarError::NotPresent) => Ok(()),
        Err(it) => Err(Error::Usage(format!("SARTOR_SIMD: {it}"))),
    }
}

fn limit_to(name: &str) -> Result<(), Error> {
    let Some(&(_, wanted)) = NAMES.iter().find(|it| it.0 == name) else {
        let known = NAMES.map(|it| it.0).join(", ");
        return Err(Error::Usage(format!("SARTOR_SIMD is `{name}`, expected one of {known}")));
    };
    sartor::force(wanted);
    if sartor::level() == wanted {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "SARTOR_SIMD is `{name}`, but this processor has at best {}",
        level_name(sartor::level())
    )))
}

/// How the variable calls a set.
pub(crate) fn level_name(level: Level) -> &'static str {
    NAMES.iter().find(|it| it.1 == level).map_or("none", |it| it.0)
}
