from include.cli.app import main

main()
