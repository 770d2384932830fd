package output

// device is a terminal or another character device, such as /dev/null. A device that
// is full (/dev/full) is not retried: nothing can be deleted from it.
type device struct{ descriptor }
