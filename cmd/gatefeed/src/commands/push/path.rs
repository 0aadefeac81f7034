//! One spelling for a path, so that pushing a file again finds its item.

use std::path::{Component, Path, PathBuf};

/// Without `.`, double slashes, and `..` where that does not leave a link: what is above a link's target is not what
/// is above the link. A plain path stays as it is.
pub(super) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if ends_in_folder(&plain) => {
                plain.pop();
            }
            // Above the root is the root.
            Component::ParentDir if plain.has_root() && plain.parent().is_none() => {}
            _ => plain.push(component),
        }
    }
    plain
}

/// Whether its last part is a name, and not that of a link.
fn ends_in_folder(path: &Path) -> bool {
    matches!(path.components().next_back(), Some(Component::Normal(_))) && !path.is_symlink()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, os::unix::fs::symlink};

    fn text(path: &str) -> String {
        plain(Path::new(path)).to_str().unwrap().to_owned()
    }

    #[test]
    fn what_is_plain_stays_as_it_is() {
        for path in
            ["a", "examples/resumes/a b.txt", "/usr/share/doc/x", "../a", "../../a/b", ".hidden", "a..b"]
        {
            assert_eq!(text(path), path);
        }
        let odd = Path::new(OsStr::from_bytes(b"a\xff/b"));
        assert_eq!(plain(odd), odd);
    }

    #[test]
    fn spellings_of_a_path_become_one() {
        for path in ["./a/b", "a//b", "a/./b", "a/c/../b", "x/../a/b", ".//x/y/../../a/./b"] {
            assert_eq!(text(path), "a/b");
        }
        assert_eq!(text("a/../../b"), "../b");
        assert_eq!(text("../a/../b"), "../b");
        assert_eq!(text("/../..//a/../b"), "/b");
    }

    #[test]
    fn above_a_link_is_left_to_the_file_system() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("far/away")).unwrap();
        symlink(dir.path().join("far/away"), dir.path().join("link")).unwrap();
        let path = dir.path().join("link/../x");
        assert_eq!(plain(&path), path);
        assert_eq!(plain(&dir.path().join("link/y/../x")), dir.path().join("link/x"));
    }
}
