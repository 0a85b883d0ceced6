"""A recorded attack to walk through, in JupyterLab and in a page without a kernel."""
