/* Preloaded into a node, it makes every sync a lie: a test of the power cut must then find losses, or it tests nothing. */
int fsync(int descriptor) { return descriptor < 0 ? -1 : 0; }
int fdatasync(int descriptor) { return descriptor < 0 ? -1 : 0; }
int sync_file_range(int descriptor, long offset, long length, unsigned flags) {
    (void)offset; (void)length; (void)flags;
    return descriptor < 0 ? -1 : 0;
}
