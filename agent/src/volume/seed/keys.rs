//! Keys that a message no longer names. cloud-init adds keys and takes none away, so the guest is told which were the
//! message's once; what somebody has put there himself stays.

use std::collections::BTreeSet;

/// Of the keys of earlier revisions so many bytes are remembered, the latest of them.
const REMEMBERED: usize = 64 * 1024;
/// The shortest text that is taken for a key: its type alone, in base64.
const SHORTEST: usize = 16;

/// What tells the keys in a line of `authorized_keys` (sshd(8)) from others: their base64, whatever stands around it.
/// Nothing else is in it, so it can stand in a command.
fn material(line: &str) -> impl Iterator<Item = &str> {
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
    line.split_whitespace().filter(move |word| {
        // The length of the type's name, which is below 65,536.
        word.starts_with("AAAA") && word.len() >= SHORTEST && word.bytes().all(is_base64)
    })
}

/// The keys of all revisions after those `before` this one, which names `keys`.
pub(super) fn told(before: Vec<String>, keys: &[String]) -> Vec<String> {
    let now: BTreeSet<&str> = keys.iter().flat_map(|key| material(key)).collect();
    let mut told = before;
    told.retain(|key| !now.contains(key.as_str()));
    let mut bytes = 0;
    let kept = told.iter().rev().take_while(|key| {
        bytes += key.len();
        bytes <= REMEMBERED
    });
    told.drain(..told.len() - kept.count());
    told.extend(now.into_iter().map(str::to_owned));
    told
}

/// A script that takes those of the keys once `told` that are not among `keys` from everybody who may log in, once for each
/// instance id and before cloud-init adds what the message names; `None` when there are none.
pub(super) fn hook(told: &[String], keys: &[String]) -> Option<String> {
    let now: BTreeSet<&str> = keys.iter().flat_map(|key| material(key)).collect();
    let gone = told.iter().filter(|key| !now.contains(key.as_str()));
    let gone: String = gone
        .map(|key| {
            format!(" -e \"\\,[[:space:]]{key}[[:space:]],d\" -e \"\\,[[:space:]]{key}\\$,d\"")
        })
        .collect();
    (!gone.is_empty()).then(|| {
        format!(
            "#!/bin/sh\n\
             [ \"$1\" = now ] || exec cloud-init-per instance crn-keys \"$0\" now\n\
             cut -d: -f6 /etc/passwd | sort -u | while IFS= read -r home; do\n\
             keys=\"$home/.ssh/authorized_keys\"\n\
             [ ! -f \"$keys\" ] || sed -i{gone} \"$keys\"\n\
             done\n"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOld+/key0 me@old";
    const NEW: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINew+/key1";
    /// The message's key begins as this one does.
    const OWN: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOld+/key0and+more somebody";

    fn keys(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    /// R14: a key that its owner had taken out of the message opened the machine for ever.
    #[test]
    fn the_script_takes_the_messages_old_keys_from_everybody_and_leaves_all_others() {
        let told = told(told(vec![], &keys(&[OLD])), &keys(&[NEW]));
        let script = hook(&told, &keys(&[NEW])).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        // Beside cloud-init itself, which is in no test's host: `cloud-init-per FREQUENCY NAME COMMAND...`.
        let program = |name: &str, text: &str| {
            fs::write(at(name), text).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
        };
        program("cloud-init-per", "#!/bin/sh\nshift 2\nexec \"$@\"\n");
        let mut passwd = String::new();
        let own = format!("# mine\n{OWN}\nrestrict,command=\"x y\" {NEW} also\n");
        for user in ["root", "debian", "without"] {
            let home = at(user).display().to_string();
            passwd.push_str(&format!("{user}:x:0:0::{home}:/bin/sh\n"));
            if user != "without" {
                fs::create_dir_all(at(user).join(".ssh")).unwrap();
                let bare = OLD.split(' ').take(2).collect::<Vec<_>>().join(" ");
                let text = format!("{OLD}\n{own}no-pty {bare}\n");
                fs::write(at(user).join(".ssh/authorized_keys"), text).unwrap();
            }
        }
        fs::write(at("passwd"), passwd).unwrap();
        let script = script.replace("/etc/passwd", at("passwd").to_str().unwrap());
        program("hook", &script);
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", dir.path().display());
        let output = Command::new(at("hook")).env("PATH", path).output();
        let output = output.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{error}");
        for user in ["root", "debian"] {
            let left = fs::read_to_string(at(user).join(".ssh/authorized_keys")).unwrap();
            assert_eq!(left, own, "{user}");
        }
    }

    #[test]
    fn a_key_that_comes_back_is_not_taken_away() {
        let before = told(told(vec![], &keys(&[OLD, NEW])), &keys(&[NEW]));
        assert!(hook(&before, &keys(&[NEW])).is_some());
        let again = told(before, &keys(&[NEW, OLD]));
        assert_eq!(hook(&again, &keys(&[NEW, OLD])), None);
    }

    proptest! {
        /// Whatever is called a key, what stands in the script is base64, and what is remembered is bounded.
        #[test]
        fn nothing_but_base64_gets_into_the_script(
            first in prop::collection::vec("(AAAA[A-Za-z0-9+/=]{0,20}|[ -~\\n]{0,20}| ){0,6}", 0..8),
            second in prop::collection::vec(".{0,40}", 0..8),
        ) {
            let told = told(told(vec![], &first), &second);
            for key in &told {
                prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b)));
            }
            if let Some(script) = hook(&told, &second) {
                prop_assert_eq!(script.lines().count(), 6);
            }
            let long: Vec<String> = (0..3000).map(|n| format!("{n:05}{}", "A".repeat(50))).collect();
            let bytes: usize = super::told(long, &[]).iter().map(String::len).sum();
            prop_assert!(bytes <= REMEMBERED);
        }
    }
}
