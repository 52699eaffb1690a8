"""Who reaches whom: real traffic between network namespaces, and tables of what is expected."""
