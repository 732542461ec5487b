//! A store that forgets: state behind a lock. For tests, and the fake of every other test.
