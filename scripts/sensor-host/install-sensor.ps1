# SPDX-License-Identifier: MPL-2.0

<#
.SYNOPSIS
Installs a classic (v2.x) Microsoft Defender for Identity sensor with the deployment
access key that Vault Agent has written to a file.

.DESCRIPTION
Vault Agent runs this script each time it has written the file (see agent.hcl). The
installer gets the name of the file, so the key is on no command line. It runs as SYSTEM
or an administrator on a domain controller, so the script runs it only if it has a valid
Authenticode signature of Microsoft's. The file with the key is removed in any case; if
the installation fails, the agent's next read writes it again.

.PARAMETER AccessKeyFile
Full path of the file with the key.

.PARAMETER Installer
Full path of the installer from the package that mdi/deployment-package names.

.PARAMETER ProxyUrl
Proxy of the sensor, such as http://proxy.example.com:8080.

.OUTPUTS
Exit code 0: the sensor is installed, now or already. 3010: it is, and the host has
to be restarted. 1618: another installation is running; try again later. Anything
else is the installer's code, or 1 if it was not run.
#>
[CmdletBinding()]
param(
    [Parameter(Mandatory)] [string] $AccessKeyFile,
    [string] $Installer = (Join-Path $PSScriptRoot 'Azure ATP sensor Setup.exe'),
    [string] $ProxyUrl
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$sensorService = 'AATPSensor'

function Test-MicrosoftSignature([string] $Path) {
    $signature = Get-AuthenticodeSignature -LiteralPath $Path
    if ($signature.Status -ne 'Valid') {
        Write-Error -ErrorAction Continue "The signature of $Path is not valid: $($signature.Status)."
        return $false
    }
    # Valid means that Windows trusts the chain; the name shows who has signed.
    $organization = $signature.SignerCertificate.Subject -split ',\s*' | Where-Object { $_ -like 'O=*' }
    if ($organization -ne 'O=Microsoft Corporation') {
        Write-Error -ErrorAction Continue "$Path is not signed by Microsoft Corporation."
        return $false
    }
    return $true
}

function Install-Sensor {
    # The file stays open, which prevents writing until the installer has ended: the file
    # that runs is the one that was verified.
    $lock = [System.IO.File]::Open($Installer, 'Open', 'Read', 'Read')
    try {
        if (-not (Test-MicrosoftSignature $Installer)) {
            return 1
        }
        $arguments = @('/quiet', 'NetFrameworkCommandLineArguments="/q"', "AccessKeyFile=`"$AccessKeyFile`"")
        if ($ProxyUrl) {
            $arguments += "ProxyUrl=`"$ProxyUrl`""
        }
        $process = Start-Process -FilePath $Installer -ArgumentList $arguments -Wait -PassThru
        return $process.ExitCode
    }
    finally {
        $lock.Dispose()
    }
}

function Resolve-ExitCode([int] $Code) {
    switch ($Code) {
        0 { Write-Output 'The sensor is installed.'; exit 0 }
        1641 { Write-Output 'The sensor is installed, and the host is being restarted.'; exit 0 }
        3010 { Write-Output 'The sensor is installed. Restart the host.'; exit 3010 }
        1618 { Write-Output 'Another installation is running. Try again later.'; exit 1618 }
        default { Write-Output "The installer has failed with code $Code. Its logs are in $env:TEMP."; exit $Code }
    }
}

$code = 1
try {
    if (Get-Service -Name $sensorService -ErrorAction SilentlyContinue) {
        $code = 0
    }
    elseif ((Get-Item -LiteralPath $AccessKeyFile).Length -eq 0) {
        Write-Error -ErrorAction Continue "$AccessKeyFile is empty."
    }
    else {
        $code = Install-Sensor
    }
}
catch {
    # An error message can have paths in it, but never the key: no command of this script
    # reads the file.
    Write-Error -ErrorAction Continue $_.Exception.Message
}
finally {
    Remove-Item -LiteralPath $AccessKeyFile -Force -ErrorAction SilentlyContinue
}
Resolve-ExitCode $code
