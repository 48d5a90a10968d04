//! Topics as declared and as they are.
