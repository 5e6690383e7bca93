//! The node's operator: whoever can read the token file on the node, or holds the owner's wallet.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

/// Where the token stands in the state directory.
pub const TOKEN_FILE: &str = "operator.token";

/// The token, as its digest: comparing digests tells nothing about the token, however long it takes.
#[derive(Debug, Clone)]
pub struct OperatorToken {
    digest: [u8; 32],
}

impl OperatorToken {
    /// Reads the token, or makes one at the first start. Blocks; meant for the start.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        let path = state_dir.join(TOKEN_FILE);
        let token = match std::fs::read_to_string(&path) {
            Ok(token) if token.trim().len() >= 32 => token,
            Ok(_) => make(&path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(&path)?,
            Err(error) => return Err(error),
        };
        Ok(Self {
            digest: digest(token.trim()),
        })
    }

    /// Whether this is the token.
    #[must_use]
    pub fn is(&self, token: &str) -> bool {
        digest(token) == self.digest
    }

    /// Whether a request carries the token: as `Authorization: Bearer …`, or as the cookie `token`.
    #[must_use]
    pub fn in_headers(&self, headers: &HeaderMap) -> bool {
        let bearer = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        let cookies = headers
            .get_all(header::COOKIE)
            .into_iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|cookie| cookie.trim().strip_prefix("token="));
        bearer
            .into_iter()
            .chain(cookies)
            .any(|token| self.is(token))
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn make(path: &Path) -> io::Result<String> {
    let token = hex::encode(rand::random::<[u8; 32]>());
    let temporary = path.with_extension("tmp");
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(&temporary)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    /// S7: secrets lay in files that everybody could read.
    #[test]
    fn the_token_stays_across_starts_and_only_root_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = OperatorToken::open(dir.path()).unwrap();
        let path = dir.path().join(TOKEN_FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.len(), 64);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o400);
        assert!(first.is(&text));
        assert!(OperatorToken::open(dir.path()).unwrap().is(&text));
        let with = |name: header::HeaderName, value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            first.in_headers(&headers)
        };
        assert!(with(header::AUTHORIZATION, format!("Bearer {text}")));
        assert!(with(header::COOKIE, format!("a=b; token={text}")));
        assert!(!with(header::COOKIE, format!("a=b; nottoken={text}")));
    }

    proptest! {
        #[test]
        fn nothing_else_is_the_token(value in "[ -~]{0,80}") {
            let token = OperatorToken { digest: digest(&"a".repeat(64)) };
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            headers.insert(header::COOKIE, value.parse().unwrap());
            prop_assert!(!token.in_headers(&headers));
        }
    }
}
