from tunerank.commands.app import main

main()
