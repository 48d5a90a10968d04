//! Everything in one process, with a live view.
