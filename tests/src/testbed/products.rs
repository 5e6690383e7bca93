//! Where `make` leaves what it builds: `target/out/`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The checkout's root.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// One product of the build by its name in `target/out/`.
///
/// # Errors
/// When it has not been built, naming the command that builds it.
pub fn product(name: &str) -> Result<PathBuf> {
    let path = root().join("target/out").join(name);
    path.canonicalize().with_context(|| {
        format!(
            "{} is not there: `make image images` builds it",
            path.display()
        )
    })
}

/// The cache that outlives checkouts (`CRN_CACHE`).
#[must_use]
pub fn cache() -> PathBuf {
    std::env::var_os("CRN_CACHE").map_or_else(
        || {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()))
                .join(".cache/crn")
        },
        PathBuf::from,
    )
}
