//! countersign, a signing reverse proxy for the MindTouch API.
#![doc(html_no_source)]
