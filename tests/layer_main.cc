// Linked with the whole of one module and with what that module may use: a symbol that only a module
// below defines stays undefined, and the link fails.
int main() { return 0; }
