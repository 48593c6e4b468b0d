/* What the extension exports. */
const char *extension_version(void);
int extension_serve(const char *path, int requests);
