<#
.SYNOPSIS
Runs camera-trap-al in the background of Windows, as a scheduled task.

.DESCRIPTION
    powershell -ExecutionPolicy Bypass -File windows-task.ps1 install -Work D:\photos-work -Program C:\al\Scripts\camera-trap-al.exe
    powershell -ExecutionPolicy Bypass -File windows-task.ps1 stop    -Work D:\photos-work
    powershell -ExecutionPolicy Bypass -File windows-task.ps1 start   -Work D:\photos-work
    powershell -ExecutionPolicy Bypass -File windows-task.ps1 remove  -Work D:\photos-work

install: the task starts when you log on, and at once; with -AtStartup when the computer starts, also with nobody logged on
(from a PowerShell that was started as administrator; shares of other computers cannot be read then).
stop: tells the program to end, by Ctrl-Break: it ends at its last commit within 10 seconds. It stays down until start, or
the next log-on.
Windows 10 and later, with the PowerShell that comes with it. A work folder has one task.
#>
param(
    [Parameter(Mandatory = $true, Position = 0)]
    [ValidateSet("install", "start", "stop", "remove", "run")]
    [string] $Verb,
    [Parameter(Mandatory = $true)]
    [string] $Work,
    [string] $Program = "camera-trap-al.exe",
    [switch] $AtStartup
)
$ErrorActionPreference = "Stop"

# Wrong usage, a damaged journal and another daemon do not go away by starting again.
$NotAgain = @(2, 65, 75)
$AgainAfterSeconds = 10
$MostStarts = 5
$InSeconds = 600
$StopSeconds = 30

$Work = (Resolve-Path -LiteralPath $Work).ProviderPath.TrimEnd("\")
$Task = "camera-trap-al " + ($Work -replace '[\\/:*?"<>|]', "_")

function Install-Task {
    $found = (Get-Command $Program -ErrorAction SilentlyContinue)
    if ($null -eq $found) { throw "$Program is not there. Name it with -Program and its whole path." }
    if (-not (Test-Path -LiteralPath (Join-Path $Work "config.toml"))) {
        throw "$Work is no work folder. Make one with: camera-trap-al init"
    }
    $arguments = "-NoProfile -NonInteractive -ExecutionPolicy Bypass -WindowStyle Hidden -File `"$PSCommandPath`" run" +
        " -Work `"$Work`" -Program `"$($found.Source)`""
    $action = New-ScheduledTaskAction -Execute "powershell.exe" -Argument $arguments
    $user = [Security.Principal.WindowsIdentity]::GetCurrent().Name
    if ($AtStartup) {
        $trigger = New-ScheduledTaskTrigger -AtStartup
        $principal = New-ScheduledTaskPrincipal -UserId $user -LogonType S4U -RunLevel Limited
    } else {
        $trigger = New-ScheduledTaskTrigger -AtLogOn -User $user
        $principal = New-ScheduledTaskPrincipal -UserId $user -LogonType Interactive -RunLevel Limited
    }
    $settings = New-ScheduledTaskSettingsSet -MultipleInstances IgnoreNew -ExecutionTimeLimit ([TimeSpan]::Zero) `
        -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries -StartWhenAvailable -Priority 7
    Register-ScheduledTask -TaskName $Task -Action $action -Trigger $trigger -Principal $principal -Settings $settings `
        -Force | Out-Null
    Start-ScheduledTask -TaskName $Task
    "The task '$Task' runs. What it does is in $Work\log\camera-trap-al.log; ask with: camera-trap-al status `"$Work`""
}

# What the task runs: the program in a hidden console of its own, started again after a failure.
function Invoke-Program {
    $starts = @()
    while ($true) {
        $starts = @($starts | Where-Object { $_ -gt (Get-Date).AddSeconds(-$InSeconds) }) + (Get-Date)
        $process = Start-Process -FilePath $Program -ArgumentList "run `"$Work`"" -WindowStyle Hidden -PassThru
        $null = $process.Handle  # without it PowerShell does not know the exit code later
        $process.WaitForExit()
        $code = $process.ExitCode
        if ($code -eq 0 -or $NotAgain -contains $code -or $starts.Count -ge $MostStarts) { exit $code }
        Start-Sleep -Seconds $AgainAfterSeconds
    }
}

# The program's own number, as it noted it, if it runs on this computer.
function Get-Running {
    $path = Join-Path $Work "status.json"
    if (-not (Test-Path -LiteralPath $path)) { return $null }
    $status = Get-Content -LiteralPath $path -Raw -Encoding UTF8 | ConvertFrom-Json
    if ($status.host -ne [Net.Dns]::GetHostName()) { return $null }
    $process = Get-Process -Id $status.pid -ErrorAction SilentlyContinue
    if ($null -eq $process -or $process.ProcessName -notmatch "python|camera-trap-al") { return $null }
    return $process
}

function Stop-Program {
    $process = Get-Running
    if ($null -ne $process) {
        Add-Type -Namespace CameraTrapAl -Name Console -MemberDefinition @'
[DllImport("kernel32.dll", SetLastError = true)] public static extern bool FreeConsole();
[DllImport("kernel32.dll", SetLastError = true)] public static extern bool AttachConsole(uint process);
[DllImport("kernel32.dll", SetLastError = true)] public static extern bool GenerateConsoleCtrlEvent(uint what, uint group);
public delegate bool Handler(uint what);
[DllImport("kernel32.dll", SetLastError = true)] public static extern bool SetConsoleCtrlHandler(Handler handler, bool add);
private static readonly Handler Passing = delegate(uint what) { return true; };
public static bool Break(uint process) {
    FreeConsole();
    // The event reaches every program of the console, this one too, which lets it pass.
    return AttachConsole(process) && SetConsoleCtrlHandler(Passing, true) && GenerateConsoleCtrlEvent(1, 0);
}
'@
        if ([CameraTrapAl.Console]::Break([uint32] $process.Id)) {
            $null = $process.WaitForExit($StopSeconds * 1000)
        }
    }
    # What has not heeded that is ended hard, which loses nothing that is durable.
    Stop-ScheduledTask -TaskName $Task -ErrorAction SilentlyContinue
    if ($null -ne $process -and -not $process.HasExited) { Stop-Process -Id $process.Id -Force }
}

switch ($Verb) {
    "install" { Install-Task }
    "run" { Invoke-Program }
    "start" { Start-ScheduledTask -TaskName $Task }
    "stop" { Stop-Program }
    "remove" { Stop-Program; Unregister-ScheduledTask -TaskName $Task -Confirm:$false }
}
