//! Read-only memory maps of files of words: the one place that needs `unsafe` for them.
